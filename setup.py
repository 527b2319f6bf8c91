"""Package metadata; tools/install.sh calls this after it has installed torch."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CONFIGS_IN_PACKAGE = Path("ldmseg_d2", "model_zoo", "configs")


def read_version() -> str:
    """Read `__version__` as text: importing the package here would need torch."""
    source = (ROOT / "ldmseg_d2" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('ldmseg_d2/__init__.py needs a line like: __version__ = "0.1.0"')
    return match.group(1)


def read_readme() -> str:
    """Return README.md, or nothing where a source archive left it out."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


class BuildWithConfigs(build_py):
    """Put `configs/` into built packages as `ldmseg_d2/model_zoo/configs`.

    The copy is made in the build folder only. A link or copy in the source tree would go stale,
    and an editable install needs none: model_zoo looks for `configs/` beside the package first.
    """

    def _configs(self) -> dict:
        """Map each YAML file, relative to the repository, to its place in the build folder."""
        target = Path(self.build_lib) / CONFIGS_IN_PACKAGE
        files = sorted((ROOT / "configs").rglob("*.yaml"))
        return {f.relative_to(ROOT): target / f.relative_to(ROOT / "configs") for f in files}

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        # The build folder is kept between builds: configs that are gone must not stay in it.
        shutil.rmtree(Path(self.build_lib) / CONFIGS_IN_PACKAGE, ignore_errors=True)
        for source, target in self._configs().items():
            self.mkpath(str(target.parent))
            self.copy_file(str(ROOT / source), str(target))

    def get_outputs(self, *args, **kwargs) -> list:
        outputs = list(super().get_outputs(*args, **kwargs))
        if not getattr(self, "editable_mode", False):
            outputs += [str(target) for target in self._configs().values()]
        return outputs

    def get_source_files(self) -> list:
        """List the configs as sources too, so that a source archive holds them."""
        return [*super().get_source_files(), *(str(source) for source in self._configs())]


# Detectron2 and panopticapi are needed as well, but cannot be named here: neither is on PyPI under
# its own name, and the packages that carry them there ask for numpy<2 and one Python version.
# tools/install.sh installs both. What Detectron2 itself needs is listed below for that reason.
INSTALL_REQUIRES = [
    "torch>=2.4",
    "torchvision>=0.19",
    "diffusers>=0.30",
    "timm>=1.0.9",
    "fvcore>=0.1.5,<0.1.6",
    "pycocotools>=2.0.7",
    # The headless build: the other one needs libGL, which servers and containers lack.
    # From 4.11 on it draws polygons as the generated scenes expect; a test pins their hashes.
    "opencv-python-headless>=4.11",
    "scipy>=1.9",
    # Connected regions of a map of many labels; the random walker of evaluate_inpainting.py.
    "scikit-image>=0.20",
    "safetensors>=0.4",
    "numpy>=1.23",
    "Pillow>=9.4",
    "tqdm>=4.60",
    # Detectron2's own needs.
    "iopath>=0.1.7,<0.1.10",
    "yacs>=0.1.8",
    "termcolor>=1.1",
    "tabulate",
    "cloudpickle",
    "omegaconf>=2.3,<2.4",
    "hydra-core>=1.1",
    "matplotlib",
    "tensorboard",
    "packaging",
    # detectron2.model_zoo imports pkg_resources, which later setuptools no longer have.
    "setuptools<81",
]

EXTRAS_REQUIRE = {
    "dev": [
        "pytest>=7.4",
        "pytest-timeout>=2.1",
        "hypothesis>=6.80",
        "ruff>=0.4",
        "scikit-image>=0.20",  # as in "inpainting": a baseline that the tests run
        "transformers>=4.41",  # as in "baselines"
    ],
    # Since 6.10 gr.HTML tells its script of new values.
    "app": ["gradio>=6.10"],
    # Playwright drives a browser that is installed, such as Debian's chromium; it brings none here.
    "browser-tests": ["gradio>=6.10", "playwright>=1.40"],
    "fast-eval": ["hotcoco"],
    "baselines": ["transformers>=4.41"],
    # The random walker, a baseline of tools/evaluate_inpainting.py.
    "inpainting": ["scikit-image>=0.20"],
}

setup(
    name="ldmseg_d2",
    version=read_version(),
    description="LDMSeg, latent diffusion for panoptic segmentation, as a Detectron2 plugin",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ldmseg_d2", "ldmseg_d2.*"]),
    package_data={
        "ldmseg_d2.model_zoo": ["*.yaml", "*.json", "*.safetensors"],
        "ldmseg_d2.app": ["*.js", "*.css"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    cmdclass={"build_py": BuildWithConfigs},
    zip_safe=False,
)

"""Your own data: `tools/prepare_custom.py` writes a folder, this package registers it.

Only the registration is imported here: it runs whenever the package is imported, and needs none of
the readers.
"""

from .registration import register_custom, register_custom_folders

__all__ = ["register_custom", "register_custom_folders"]

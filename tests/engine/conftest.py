import logging

import pytest
from detectron2.utils.logger import setup_logger


@pytest.fixture(autouse=True)
def restore_loggers():
    """Undo Detectron2's set-up of loggers, which would hide records from other tests' caplog."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "ldmseg_d2")]
    before = [(log.handlers[:], log.propagate, log.level) for log in loggers]
    yield
    for log, (handlers, propagate, level) in zip(loggers, before):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
    setup_logger.cache_clear()

"""Models of any kind side by side: quality, cost and speed under equal conditions."""

from .budget import Budget
from .contenders import Contender, read_contenders
from .costs import interleave
from .session import Session, Settings

__all__ = ["Budget", "Contender", "Session", "Settings", "interleave", "read_contenders"]

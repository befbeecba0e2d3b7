"""Where runs live: SQLite for records, folders for checkpoints and adapters. Needs sqlalchemy (`journeyman[local]`)."""

from journeyman.store.checkpoints import Checkpoint, Checkpoints
from journeyman.store.home import HomeFolder, RunFolder
from journeyman.store.models import AdapterRow, ModelRow
from journeyman.store.rollouts import RolloutRow
from journeyman.store.store import Store

__all__ = ["AdapterRow", "Checkpoint", "Checkpoints", "HomeFolder", "ModelRow", "RolloutRow", "RunFolder", "Store"]

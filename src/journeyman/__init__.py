"""Journeyman trains a small open model to be good at one job: your agent's.

The public names below are imported when they are first used, so that `import journeyman` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from journeyman.version import __version__

if TYPE_CHECKING:
    from journeyman.agents.server_pool import ServerPool as ServerPool
    from journeyman.agents.tool_loop import ToolLoop as ToolLoop
    from journeyman.agents.tool_loop import ToolLoopSettings as ToolLoopSettings
    from journeyman.client.backend import Connection as Connection
    from journeyman.client.backend import connect as connect
    from journeyman.client.gather import gather as gather
    from journeyman.client.gather import iterate as iterate
    from journeyman.client.models import Model as Model
    from journeyman.client.pairs import best_trajectories as best_trajectories
    from journeyman.client.pairs import pairs_from_groups as pairs_from_groups
    from journeyman.client.rollout import Rollout as Rollout
    from journeyman.local import local as local
    from journeyman.mcp.client import open_server as open_server
    from journeyman.mcp.target import McpTarget as McpTarget
    from journeyman.rewards.evidence import EvidenceJudge as EvidenceJudge
    from journeyman.rewards.judge import Rubric as Rubric
    from journeyman.rewards.judge import best_of as best_of
    from journeyman.rewards.ruler import Criterion as Criterion
    from journeyman.rewards.ruler import Ruler as Ruler
    from journeyman.rewards.ruler import RulerOptions as RulerOptions
    from journeyman.scenarios.build import ScenarioSettings as ScenarioSettings
    from journeyman.scenarios.build import build_scenarios as build_scenarios
    from journeyman.scenarios.drills import drills as drills
    from journeyman.scenarios.proposals import CompletionProposer as CompletionProposer
    from journeyman.scenarios.scenario_set import ScenarioSet as ScenarioSet
    from journeyman.types.scenarios import Scenario as Scenario
    from journeyman.types.settings import Dpo as Dpo
    from journeyman.types.settings import Grpo as Grpo
    from journeyman.types.settings import LoraSettings as LoraSettings
    from journeyman.types.settings import Sft as Sft
    from journeyman.types.training import PreferencePair as PreferencePair
    from journeyman.types.training import SftExample as SftExample
    from journeyman.types.training import StoredExample as StoredExample
    from journeyman.types.training import StoredPair as StoredPair
    from journeyman.types.training import TextExample as TextExample
    from journeyman.types.training import TextPair as TextPair
    from journeyman.types.trajectory import Group as Group
    from journeyman.types.trajectory import Trajectory as Trajectory


_MODULE_OF = {
    "CompletionProposer": "journeyman.scenarios.proposals",
    "Connection": "journeyman.client.backend",
    "Criterion": "journeyman.rewards.ruler",
    "Dpo": "journeyman.types.settings",
    "EvidenceJudge": "journeyman.rewards.evidence",
    "Group": "journeyman.types.trajectory",
    "Grpo": "journeyman.types.settings",
    "LoraSettings": "journeyman.types.settings",
    "McpTarget": "journeyman.mcp.target",
    "Model": "journeyman.client.models",
    "PreferencePair": "journeyman.types.training",
    "Rollout": "journeyman.client.rollout",
    "Rubric": "journeyman.rewards.judge",
    "Ruler": "journeyman.rewards.ruler",
    "RulerOptions": "journeyman.rewards.ruler",
    "Scenario": "journeyman.types.scenarios",
    "ScenarioSet": "journeyman.scenarios.scenario_set",
    "ScenarioSettings": "journeyman.scenarios.build",
    "ServerPool": "journeyman.agents.server_pool",
    "Sft": "journeyman.types.settings",
    "SftExample": "journeyman.types.training",
    "StoredExample": "journeyman.types.training",
    "StoredPair": "journeyman.types.training",
    "TextExample": "journeyman.types.training",
    "TextPair": "journeyman.types.training",
    "ToolLoop": "journeyman.agents.tool_loop",
    "ToolLoopSettings": "journeyman.agents.tool_loop",
    "Trajectory": "journeyman.types.trajectory",
    "best_of": "journeyman.rewards.judge",
    "best_trajectories": "journeyman.client.pairs",
    "build_scenarios": "journeyman.scenarios.build",
    "connect": "journeyman.client.backend",
    "drills": "journeyman.scenarios.drills",
    "gather": "journeyman.client.gather",
    "iterate": "journeyman.client.gather",
    "local": "journeyman.local",
    "open_server": "journeyman.mcp.client",
    "pairs_from_groups": "journeyman.client.pairs",
}

__all__ = [
    "CompletionProposer",
    "Connection",
    "Criterion",
    "Dpo",
    "EvidenceJudge",
    "Group",
    "Grpo",
    "LoraSettings",
    "McpTarget",
    "Model",
    "PreferencePair",
    "Rollout",
    "Rubric",
    "Ruler",
    "RulerOptions",
    "Scenario",
    "ScenarioSet",
    "ScenarioSettings",
    "ServerPool",
    "Sft",
    "SftExample",
    "StoredExample",
    "StoredPair",
    "TextExample",
    "TextPair",
    "ToolLoop",
    "ToolLoopSettings",
    "Trajectory",
    "__version__",
    "best_of",
    "best_trajectories",
    "build_scenarios",
    "connect",
    "drills",
    "gather",
    "iterate",
    "local",
    "open_server",
    "pairs_from_groups",
]


class _Package(ModuleType):
    """This package. Importing the module `journeyman.local` must not hide the function `journeyman.local`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "local" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'journeyman' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])

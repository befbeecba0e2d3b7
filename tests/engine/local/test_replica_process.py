"""An engine process says why it cannot load, and ends with its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import psutil

from journeyman.engine.local import replica_process
from journeyman.engine.local.replica import Answer, Call
from journeyman.errors import ModelNotFoundError
from journeyman.modeling.base_models import BaseModel


async def test_a_folder_without_a_model_is_the_same_error_as_in_one_process(tmp_path: Path) -> None:
    parent, child = Pipe()
    parent.send(Call(7, "create", (BaseModel("nothing", tmp_path), {"device": "cpu"})))
    parent.send(Call(8, "close"))  # so that the reader ends before the pipe does
    await replica_process.run(child)
    answer = parent.recv()
    assert isinstance(answer, Answer)
    assert (answer.number, answer.is_last) == (7, True)
    assert isinstance(answer.value, ModelNotFoundError)
    assert "config.json" in (answer.value.hint or "")


# No `if __name__ == "__main__"`, as people write scripts.
SCRIPT = """
import asyncio, sys
from pathlib import Path
from journeyman.engine.local.replicas import ReplicatedEngine
from journeyman.modeling.base_models import BaseModel
from journeyman.types.sampling import SampleRequest, SamplingParameters
engine = ReplicatedEngine.create(BaseModel("tiny", Path(sys.argv[1])), 1, device="cpu")
sample = asyncio.run(engine.sample(SampleRequest((5, 6, 7), SamplingParameters(max_tokens=3))))
print(engine.process_ids[0], len(sample.token_ids), flush=True)
sys.stdin.read()
"""


def test_a_killed_parent_leaves_no_process_behind(sharp_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(script), str(sharp_model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, num_tokens = map(int, parent.stdout.readline().split())
        assert num_tokens == 3
        child = psutil.Process(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30.0
    # Nobody may be there to reap it.
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine process outlived its parent by 30 s"

"""What only a CUDA device can show of kdbench, in one call of less than ten minutes.

    python3 .ci/gpu_probe.py [--out DIR] [--limit SECONDS] [SECTION ...]

Each section runs in a process of its own, since a failed capture may leave torch in any state. It writes lines of JSON
to DIR/probe.jsonl and prints them; a summary comes last, and DIR/probe.md has the table of step times. `--device cpu`
is a dry run of the same code with a recorder that only calls what it records; `--quick` makes it short.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["ce", "kd", "dkd", "ctkd", "bickd"]
PAIR = "resnet32x4:resnet8x4"
STEPS_OF_240_EPOCHS = 782 * 240  # CIFAR-100 in batches of 64
# name -> seconds it may take; in this order, as long as time is left
SECTIONS = {
    "env": 40, "ladder": 240, "pytest": 200, "bits": 120, "epochs": 60, "neighbour": 50, "profile": 60,
}  # fmt: skip


def main() -> int:
    """Run all sections, or one of them as a child. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS])
    parser.add_argument("--out", default="probe")
    parser.add_argument("--limit", type=float, default=570)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="few steps on small images: a dry run")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if arguments.child:
        CHILDREN[arguments.child](Kit(arguments))
        return 0
    import torch

    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("needs a CUDA device that torch sees; --device cpu --quick is a dry run", file=sys.stderr)
        return 1
    return run_sections(arguments)


def run_sections(arguments: argparse.Namespace) -> int:
    """Run each section in a process, as long as there is time. Returns the exit code."""
    out, started = Path(arguments.out).resolve(), time.time()
    out.mkdir(parents=True, exist_ok=True)
    log = out / "probe.jsonl"
    log.write_text("")
    with open(out / "errors.txt", "w") as errors:
        for name in arguments.sections or SECTIONS:
            left = arguments.limit - (time.time() - started)
            if left < 15:
                emit(log, name, skipped="no time left")
                continue
            begin = time.time()
            command = [sys.executable, __file__, "--child", name, "--out", str(out)]
            command += ["--device", arguments.device, *(["--quick"] if arguments.quick else [])]
            print(f"\n== {name}", file=errors, flush=True)
            child = subprocess.Popen(command, stderr=errors, start_new_session=True)
            try:
                code: int | str = child.wait(min(SECTIONS[name], left - 5))
            except subprocess.TimeoutExpired:
                code = "timeout"
            with contextlib.suppress(ProcessLookupError):  # with what it started
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            emit(log, name, seconds=round(time.time() - begin, 1), code=code)
    summarise(log, out / "probe.md")
    return 0


def emit(log: Path, section: str, **values: Any) -> None:
    """Write a line of the log, and print it."""
    line = json.dumps({"section": section, **values}, default=str)
    with log.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def summarise(log: Path, table: Path) -> None:
    """Write the table of step times, and print all in brief."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    rungs = [each for each in entries if "rung" in each]
    lines = ["| step of five methods | ms | 240 epochs, minutes | own ms |", "|---|---|---|---|"]
    for each in rungs:
        own = " ".join(f"{name} {ms}" for name, ms in each.get("own_ms", {}).items())
        result = each.get("ms", each.get("error", ""))
        lines.append(f"| {each['rung']} | {result} | {each.get('minutes', '')} | {own} |")
    table.write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    for each in entries:
        if "rung" not in each:
            print(f"{each.pop('section')}: {json.dumps(each, default=str)[:600]}")


class Dry:
    """A recorder for a CPU: it calls what it records."""

    def record(self, function: Callable[[], Any], generators: Sequence[Any] = ()) -> Callable[[], Any]:
        """Return the function itself."""
        return function

    def run_watched(self, function: Callable[[], Any]) -> tuple[Any, bool]:
        """Nothing waits."""
        return function(), False

    def side_by_side(self, functions: Sequence[Callable[[], Any]]) -> None:
        """One after the other."""
        for function in functions:
            function()


class Kit:
    """The device, a job on synthetic images, and the log; torch and kdbench are imported in the child alone."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import torch

        from kdbench import registry
        from kdbench.train import cohort

        registry.load()
        self.torch, self.quick, self.device = torch, arguments.quick, torch.device(arguments.device)
        self.cuda = self.device.type == "cuda"
        self.out, self.section = Path(arguments.out), arguments.child
        if not self.cuda:
            torch.set_num_threads(1)
            cohort.GraphRecorder = lambda device: Dry()  # type: ignore

    def say(self, **values: Any) -> None:
        """Log values of this section."""
        emit(self.out / "probe.jsonl", self.section, **values)

    def steps(self, many: int) -> int:
        """How many steps are timed."""
        return 4 if self.quick else many

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.cuda:
            self.torch.cuda.synchronize()

    @contextlib.contextmanager
    def job(
        self,
        batches: int,
        methods: Sequence[str] = METHODS,
        graphs: str = "",
        precision: str = "bf16",
        cached: bool = False,
        **recipe: Any,
    ) -> Iterator[Any]:
        """A cohort on images of CIFAR's shape; ``recipe``: changed fields. One epoch has ``batches`` steps."""
        from kdbench import suites
        from kdbench.bench.workload import made_up, measured, work
        from kdbench.plan.selection import select_pairs

        suite = measured(suites.load("cifar100"))
        if self.quick:  # a dry run
            suite = dataclasses.replace(suite, dataset=dataclasses.replace(suite.dataset, size=8))
        (pair,) = select_pairs(suite, ["resnet20:resnet8" if self.quick else PAIR])
        precision = precision if self.cuda else "fp32"
        timed = work(suite, pair, methods, str(self.device), precision=precision, cached=cached)
        with made_up(timed, batches) as job:
            changed = (
                dataclasses.replace(c, recipe=dataclasses.replace(c.recipe, **recipe)) for c in job.cells
            )
            yield dataclasses.replace(job, cells=tuple(changed), graphs=graphs)

    def timed(
        self, steps: int, change: Callable[[Any], None] = lambda cohort: None, **job: Any
    ) -> dict[str, Any]:
        """Milliseconds per step of a cohort, past its recordings, and of each cell by its own clock."""
        from kdbench.bench.timing import Blocks, median_ms
        from kdbench.train.recorded_steps import settled

        warmup, block = settled(job.get("graphs", "")) + 3, max(1, steps // 5)
        with self.job(warmup + 5 * block + 1, **job) as made:
            loop = Blocks(made, warmup, block)
            change(loop.cohort)
            blocks = loop.run()[:5]
            row = loop.cohort._result(made.cells[0]).row
        ms = median_ms(blocks, block)
        count = loop.done
        own = {t.cell.method: round(1000 * t.watch.seconds / count, 3) for t in loop.cohort.trainees}
        minutes = round(ms * STEPS_OF_240_EPOCHS / 6e4, 1)
        return {"ms": round(ms, 3), "minutes": minutes, "own_ms": own, "peak_mib": round(row["peak_mem_mb"])}


# --- sections ---


def env(kit: Kit) -> None:
    """What the machine is, and what a launch costs."""
    import timm

    torch = kit.torch
    kit.say(torch=torch.__version__, timm=timm.__version__, cuda=torch.version.cuda, cores=os.cpu_count())
    if not kit.cuda:
        return
    x = torch.zeros(1, device=kit.device)

    def per_call(call: Callable[[], Any], count: int) -> float:
        kit.synchronise()
        begin = time.perf_counter()
        for _ in range(count):
            call()
        kit.synchronise()
        return 1e6 * (time.perf_counter() - begin) / count

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(1000):
            x.add_(1)
    graph.replay()
    kit.say(
        device=torch.cuda.get_device_name(),
        cudnn=torch.backends.cudnn.version(),
        eager_us_per_launch=per_call(lambda: x.add_(1), 5000),
        graph_us_per_node=per_call(graph.replay, 20) / 1000,
    )


def ladder(kit: Kit) -> None:
    """Milliseconds per cohort step of each design; docs/gpu.md has the predictions."""
    many, few = kit.steps(300), kit.steps(60)
    rungs: dict[str, Callable[[], dict[str, Any]]] = {
        "eager": lambda: kit.timed(few),
        "--graphs sequential": lambda: kit.timed(many, graphs="sequential"),
        "--graphs": lambda: kit.timed(many, graphs="branches"),
        "--graphs, cuDNN free to choose": lambda: kit.timed(many, _undetermined, graphs="branches"),
        "--graphs, teacher cached": lambda: kit.timed(many, graphs="branches", cached=True),
        "--graphs, kd alone": lambda: kit.timed(many, graphs="branches", methods=["kd"]),
        "--graphs, fp32": lambda: kit.timed(many, graphs="branches", precision="fp32"),
        "--graphs, tf32": lambda: kit.timed(many, graphs="branches", precision="tf32"),
        "--graphs, two views (mlkd, kd)": lambda: kit.timed(many, graphs="branches", methods=["mlkd", "kd"]),
    }
    for name, rung in rungs.items():
        kit.say(rung=name, **_tried(rung))
        gc.collect()


def _undetermined(cohort: Any) -> None:
    """Let cuDNN take any algorithm once the training runs."""
    import torch

    begin = cohort.progress.begin

    def changed(*arguments: Any) -> None:
        torch.backends.cudnn.deterministic = False
        begin(*arguments)

    cohort.progress.begin = changed


def _tried(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def pytest_(kit: Kit) -> None:
    """The tests marked gpu."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        "6",
        "--dist",
        "load",
        "-m",
        "gpu",
    ]
    command += ["-q", "--tb=line", "--maxfail=60", *(["tests/train/test_gpu.py"] if kit.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    (kit.out / "pytest.txt").write_text(done.stdout + done.stderr)
    kit.say(code=done.returncode, tail=done.stdout.strip().splitlines()[-12:])


def bits(kit: Kit) -> None:
    """Hashes of kd's student: alone, again, in a cohort, and from graphs; equal ones are equal bits."""
    from kdbench.train.callbacks import Progress
    from kdbench.train.cohort import Cohort
    from kdbench.utils.state_dicts import weights_digest

    def student(methods: Sequence[str], graphs: str = "", free: bool = False) -> dict[str, Any]:
        # a rate that fp32 holds exactly: recorded steps have it on the device
        with kit.job(kit.steps(40), methods, graphs, lr=0.0625) as job:
            cohort = Cohort(job, Progress())
            if free:
                _undetermined(cohort)
            results, _ = cohort.run(lambda: False)
            (kd,) = [result for result in results if result.cell.method == "kd"]
            return {"bits": weights_digest(kd.student)}

    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "alone": lambda: student(["kd"]),
        "alone again": lambda: student(["kd"]),
        "in a cohort": lambda: student(METHODS),
        "--graphs sequential": lambda: student(METHODS, "sequential"),
        "--graphs": lambda: student(METHODS, "branches"),
        "--graphs again": lambda: student(METHODS, "branches"),
        "alone, cuDNN free to choose": lambda: student(["kd"], free=True),
        "in a cohort, cuDNN free to choose": lambda: student(METHODS, free=True),
    }
    kit.say(**{name: next(iter(_tried(way).values())) for name, way in ways.items()})


def epochs(kit: Kit) -> None:
    """Memory from epoch to epoch, and what saving and recording take."""
    from kdbench.train.callbacks import Progress
    from kdbench.train.cohort import Cohort

    torch = kit.torch
    count = 4 if kit.quick else 6

    class Watching(Progress):
        last = time.perf_counter()

        def epoch(self, epoch: int, measured: Any) -> None:
            kit.synchronise()
            seconds, self.last = time.perf_counter() - self.last, time.perf_counter()
            memory = torch.cuda.memory_reserved() / 2**20 if kit.cuda else 0
            kit.say(epoch=epoch, seconds=round(seconds, 2), reserved_mib=round(memory))

    with kit.job(30, graphs="branches", epochs=count, eval_every=1) as job:
        cohort = Cohort(dataclasses.replace(job, save_every=0.0), Watching())
        begin = time.perf_counter()
        cohort._save(cohort.trainees)
        kit.say(ms_of_a_save_for_the_loop=round(1e3 * (time.perf_counter() - begin), 1))
        for result in cohort.run(lambda: False)[0]:
            shown = ("status", "error", "train_s", "timed_steps", "cohort_s", "peak_mem_mb")
            kit.say(cell=str(result.cell), **{name: result.row.get(name) for name in shown})


def neighbour(kit: Kit) -> None:
    """A method that waits for the device is in the cohort: it stays eager, and the others are recorded."""
    from kdbench.train.callbacks import Progress
    from kdbench.train.cohort import train_cohort

    class Heard(Progress):
        def warn(self, text: str) -> None:
            kit.say(warned=text)

    plugins = Path(tempfile.mkdtemp())
    (plugins / "waits.py").write_text(
        "import torch.nn.functional as F\nfrom kdbench.method import Method, Needs\n"
        "from kdbench.registry import register\n\n\n@register\nclass Waits(Method):\n    '''x'''\n"
        "    needs = Needs(teacher=False)\n\n    def loss(self, batch, student, teacher, modules):\n"
        "        ce = F.cross_entropy(student.logits, batch.target)\n"
        "        return {'ce': ce * float(ce.detach() > -1)}\n"
    )
    from kdbench import registry

    registry.load(plugins)
    with kit.job(30, ["ce", "kd", "waits", "dkd"], graphs="branches") as job:
        for result in train_cohort(job, Heard())[0]:
            kit.say(cell=str(result.cell), status=result.row["status"], error=result.row["error"])
    if kit.cuda:
        kit.say(stream_is_default=kit.torch.cuda.current_stream() == kit.torch.cuda.default_stream())


def profile(kit: Kit) -> None:
    """Kernels of a cohort step: how many, how long, which."""
    from kdbench.train.callbacks import Progress
    from kdbench.train.cohort import Cohort

    torch = kit.torch
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if kit.cuda else []
    for methods in (["kd"], METHODS):
        with kit.job(20, methods) as job:
            cohort = Cohort(job, Progress())
            with torch.profiler.profile(activities=kinds) as trace:
                cohort.run(lambda: False)
            key = "self_device_time_total" if kit.cuda else "self_cpu_time_total"
            averages = trace.key_averages()
            launches = sum(each.count for each in averages if each.key == "cudaLaunchKernel") / 20
            kit.say(methods=methods, launches_per_step=launches)
            table = averages.table(sort_by=key, row_limit=40, max_name_column_width=90)
            with (kit.out / "profile.txt").open("a") as file:
                file.write(f"{methods}\n{table}\n")


CHILDREN: dict[str, Callable[[Kit], None]] = {
    "env": env, "ladder": ladder, "pytest": pytest_, "bits": bits, "epochs": epochs, "neighbour": neighbour,
    "profile": profile,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""Times providers of the same work against each other, and appends what came out to results/<name>.csv.

A benchmark is a script of a few lines: it says what is compared, and `run` does the rest.

    from harness import Case, run

    def cases(arguments):
        q = torch.randn(1, 8, 4096, 64, device=arguments.device)
        yield Case("forward, causal", "1 x 8 x 4096 x 64", {"ours": lambda: ours(q), "peer": lambda: peer(q)})

    if __name__ == "__main__":
        run("attention", cases, __doc__)

Of each case all providers first do the work once; where their results do not agree with the first one's, nothing is
timed. Then they take turns, the order rotating, so that whatever slows the machine slows all. On the CPU the seconds
are the process's own (what runs beside it does not count, and one thread has no other to wait for), on a GPU those
between two events. The ratio is the provider's time over that of the first one, ours, round by round, in the median.
Peak memory is what the work held at most beyond what was there before: on the CPU from the allocator's own record (the
profiler's), on a GPU from its statistics.
"""

import argparse
import csv
import datetime
import gc
import importlib.metadata
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results"
COLUMNS = [
    "benchmark", "what", "provider", "shape", "dtype", "p20_s", "p50_s", "p80_s", "ratio", "tflops", "peak_mib",
    "device", "threads", "versions", "commit", "date",
]  # fmt: skip


@dataclass
class Case:
    """One comparison.

    Args:
        what: What is done, in words.
        shape: Of the input, in words.
        providers: Callables that do it, by name, ours first. What they return must agree: a tensor, or several.
        dtype: Of the numbers.
        tolerance: By how much results may differ, relative to the largest entry; None = nothing to compare.
        flops: Floating-point operations of the work, for a column of TFLOP/s.
        inference: Whether it runs without autograd.
        setup: Called before each timed call, not timed.
    """

    what: str
    shape: str
    providers: dict[str, Callable[[], Any]]
    dtype: str = "float32"
    tolerance: float | None = 1e-4
    flops: float | None = None
    inference: bool = False
    setup: Callable[[], None] | None = None


def run(name: str, cases: Callable[[argparse.Namespace], Iterable[Case]], description: str | None, **extra) -> None:
    """The command line of a benchmark: measures the cases and appends their rows.

    Args:
        name: Of the benchmark and of its file in results/.
        cases: Makes the cases from the parsed arguments (device, and what extra adds).
        description: The script's docstring.
        extra: Further options: name=(default, help).
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=11, help="how often each provider has its turn (default: 11)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--only", default="", metavar="REGEX", help="only cases whose name and shape match")
    parser.add_argument("--dry", action="store_true", help="print, do not append rows")
    for option, (default, text) in extra.items():
        parser.add_argument(f"--{option}", type=type(default), default=default, help=f"{text} (default: {default})")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but PyTorch sees no CUDA device")
    torch.set_num_threads(arguments.threads)
    found = 0
    for case in cases(arguments):
        if re.search(arguments.only, f"{case.what}, {case.shape}, {case.dtype}"):
            rows = [{"benchmark": name, **row} for row in measure(case, arguments.rounds, arguments.device)]
            found += len(rows)
            if not arguments.dry:
                append(RESULTS / f"{name}.csv", rows)
    if not found:
        parser.error(f"--only {arguments.only}: no case matches")


def measure(case: Case, rounds: int, device: str) -> list[dict[str, str]]:
    """The rows of one case, a provider each; prints them."""
    with torch.inference_mode(case.inference):
        agree(case)
        timed = seconds(case, rounds, device)
        memory = {name: peak(case, name, device) for name in case.providers}
    ours = next(iter(case.providers))
    rows = []
    for name, values in timed.items():
        ratio = quantile([value / own for value, own in zip(values, timed[ours])], 0.5)
        middle = quantile(values, 0.5)
        rows.append({
            "what": case.what, "provider": name, "shape": case.shape, "dtype": case.dtype,
            **{f"p{q}_s": f"{quantile(values, q / 100):.4g}" for q in (20, 50, 80)},
            "ratio": f"{ratio:.3f}", "tflops": f"{case.flops / middle / 1e12:.4g}" if case.flops else "",
            "peak_mib": f"{memory[name]:.1f}", **surroundings(device),
        })  # fmt: skip
        print(
            f"{case.what:34} {case.shape:24} {case.dtype:9} {name:24} {1000 * middle:10.2f} ms  x{ratio:7.3f} "
            f"{memory[name]:9.1f} MiB {rows[-1]['tflops']:>8}",
            flush=True,
        )
    return rows


def agree(case: Case) -> None:
    """Does the work once with each provider and compares; this is also the first round of warming up."""
    (first, expected), *others = [(name, outputs(work, case)) for name, work in case.providers.items()]
    for name, found in others:
        if case.tolerance is None:
            continue
        if len(found) != len(expected):
            raise SystemExit(f"{case.what}: {name} returns {len(found)} tensors, {first} {len(expected)}")
        for ours, theirs in zip(expected, found):
            error = ((ours.double() - theirs.double()).abs().max() / ours.double().abs().max()).item()
            if not error <= case.tolerance:
                raise SystemExit(f"{case.what}: {name} differs from {first} by {error:.1e} > {case.tolerance:.0e}")


def outputs(work: Callable[[], Any], case: Case) -> list[torch.Tensor]:
    if case.setup:
        case.setup()
    out = work()
    return [
        x.detach().clone() for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)
    ]


def seconds(case: Case, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each provider, round by round."""
    timed: dict[str, list[float]] = {name: [] for name in case.providers}
    names = list(case.providers)
    for number in tqdm(range(rounds + 1), desc=case.what, leave=False, disable=None):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if case.setup:
                case.setup()
            gc.collect()
            taken = on_gpu(case.providers[name]) if device == "cuda" else on_cpu(case.providers[name])
            if number:  # the first round warms up
                timed[name].append(taken)
    return timed


def on_cpu(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def on_gpu(work: Callable[[], Any], repeats: int = 10) -> float:
    """The mean of some calls in a row, without the time that the CPU needs to begin."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / repeats


def peak(case: Case, name: str, device: str) -> float:
    """MiB held at most, beyond what was held before."""
    if case.setup:
        case.setup()
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        case.providers[name]()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        case.providers[name]()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 2**20


def quantile(values: list[float], q: float) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(q).item()


def surroundings(device: str) -> dict[str, str]:
    """Where and with what this was measured."""
    installed = []
    for package in ("torch", "triton", "transformers", "peft"):
        try:
            installed.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {processor()}",
        "threads": str(torch.get_num_threads()),
        "versions": "; ".join([f"python {platform.python_version()}", *installed]),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def append(path: Path, rows: list[dict[str, str]]) -> None:
    """Adds rows to a file of results, which begins with its columns."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)

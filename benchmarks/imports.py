"""CPU seconds and memory of processes that import something and end, taking turns.

python benchmarks/imports.py
python benchmarks/imports.py --rounds 3 --dry
"""

import argparse
import subprocess
import sys

from harness import RESULTS, append, quantile, surroundings
from tqdm import tqdm

CASES = {
    "the package": {"import papercode": "import papercode", "nothing": "pass"},
    "a first model": {
        "papercode.encoders.bert": "from papercode.encoders.bert import BERT",
        "torch alone": "import torch",
        "transformers": "from transformers import BertModel",
    },
}
# ru_maxrss would be that of this process, which the new one was for a moment; the kernel's VmHWM is not (Linux only)
OWN = """
import time
seconds = time.process_time()
memory = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(seconds, int(memory[0]) / 1024)
"""


def start(statement: str) -> tuple[float, float]:
    """CPU seconds of a fresh process, and the most MiB it held."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", statement + OWN], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{statement}: {done.stderr}")
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="how often each process is started (default: 11)")
    parser.add_argument("--dry", action="store_true", help="print, do not append rows")
    arguments = parser.parse_args()
    for what, statements in CASES.items():
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in statements}
        for number in tqdm(range(arguments.rounds + 1), desc=what, leave=False, disable=None):
            for name, statement in statements.items():
                found = start(statement)
                if number:  # the first round brings the files into memory
                    taken[name].append(found)
        ours, rows = next(iter(statements)), []
        for name, found in taken.items():
            seconds = [s for s, _ in found]
            ratio = quantile([s / own for s, (own, _) in zip(seconds, taken[ours])], 0.5)
            memory = quantile([m for _, m in found], 0.5)
            rows.append({
                "benchmark": "imports", "what": f"import: {what}", "provider": name, "shape": "", "dtype": "",
                **{f"p{q}_s": f"{quantile(seconds, q / 100):.4g}" for q in (20, 50, 80)},
                "ratio": f"{ratio:.3f}", "tflops": "", "peak_mib": f"{memory:.1f}", **surroundings("cpu"),
            })  # fmt: skip
            print(f"{what:16} {name:26} {1000 * quantile(seconds, 0.5):8.1f} ms  x{ratio:7.3f} {memory:8.1f} MiB")
        if not arguments.dry:
            append(RESULTS / "imports.csv", rows)


if __name__ == "__main__":
    main()

"""The command that cleans a file of dialogues as LCCC was cleaned [@wang2020large, section 3].

    papercode clean-dialogues raw.jsonl clean.jsonl --removed removed.jsonl --report report.json

`python -m papercode.decoders.lccc_cleaning` is the same. Imports: rules, corpus counts, noise filter, files and the
pipeline (same paper). Two passes over the file: the first counts, the second cleans; neither holds the dialogues.
"""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

try:
    import click
except ModuleNotFoundError:  # installed without what the site needs
    sys.exit("clean-dialogues: click is missing; install it with: pip install 'papercode[site]'")

from papercode.decoders.lccc_corpus import Statistics
from papercode.decoders.lccc_files import BadInputError, Writer, read_dialogues
from papercode.decoders.lccc_pipeline import REPLY_RULES, Cleaner
from papercode.decoders.lccc_rules import EDITS, RULES, Blacklist, too_long, too_short

NAMES = [*EDITS, *RULES, *REPLY_RULES, "bland", "everywhere"]
"""What --without may name."""

# \b keeps click from joining the lines
_HELP = """Clean the dialogues of SOURCE by rules, and by a classifier if you have one; write them to TARGET.

SOURCE holds one dialogue a line, as a JSON list of turns or tab-separated, or is one JSON list of dialogues. The name
of TARGET tells its form: .jsonl, .json or .tsv; .gz at the end compresses it. Nothing is written unless all is well.

\b
Example:
  papercode clean-dialogues raw.jsonl clean.jsonl \\
      --removed removed.jsonl --report report.json --blacklist words.txt
"""

_IN = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)


@click.command("clean-dialogues", help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=_IN)
@click.argument("target", type=_OUT)
@click.option("--removed", type=_OUT, help="Write what is removed here, with the reason, as JSON lines.")
@click.option("--report", type=_OUT, help="Write the counts and examples here, as JSON.")
@click.option("--blacklist", type=_IN, multiple=True, help="A file of words, one a line; a turn with one is bad.")
@click.option(
    "--without", type=click.Choice(NAMES), multiple=True, metavar="NAME", help=f"Leave out: {', '.join(NAMES)}."
)
@click.option("--salvage", is_flag=True, help="Cut a dialogue at a bad turn instead of removing all of it.")
@click.option("--least", type=click.IntRange(1), default=1, show_default=True, help="Letters in a turn, at least.")
@click.option("--most", type=click.IntRange(1), default=100, show_default=True, help="Signs in a turn, at most.")
@click.option("--most-turns", type=click.IntRange(2), default=30, show_default=True, help="Longer dialogues are cut.")
@click.option(
    "--frequent", type=click.IntRange(1), default=1000, show_default=True, help="Times that make a trigram frequent."
)
@click.option(
    "--posts", type=click.IntRange(1), default=20, show_default=True, help="Different posts a reply may follow."
)
@click.option("--noise-examples", type=_IN, help='Train a noise filter: JSON lines {"turns": [...], "noise": true}.')
@click.option("--scorer", metavar="MODULE:NAME", help="A noise filter of your own: turns -> number from 0 to 1.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="A score above it is noise."
)
@click.option("--keep-duplicates", is_flag=True, help="Let a dialogue come a second time.")
@click.option("--keep-going", is_flag=True, help="Count unreadable lines among the removed instead of stopping.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def main(
    source: Path, target: Path, removed: Path | None, report: Path | None, blacklist: tuple[Path, ...],
    without: tuple[str, ...], salvage: bool, least: int, most: int, most_turns: int, frequent: int, posts: int,
    noise_examples: Path | None, scorer: str | None, threshold: float, keep_duplicates: bool, keep_going: bool,
    force: bool,
) -> None:  # fmt: skip
    """Cleans a file; --help says how."""
    outputs = [path for path in (target, removed, report) if path is not None]
    names = [path.resolve() for path in (source, *outputs)]
    if len(set(names)) < len(names):
        raise click.ClickException("SOURCE, TARGET, --removed and --report must be different files")
    for path in outputs:
        if path.exists() and not force:
            raise click.ClickException(f"{path} exists already; --force overwrites it")
        if not path.parent.is_dir():
            raise click.ClickException(f"{path.parent} is no folder")
    try:
        noise, learned = _noise(noise_examples, scorer, threshold)
        rules = dict(RULES)
        rules["too short"] = lambda turn: too_short(turn, least)
        rules["too long"] = lambda turn: too_long(turn, most)
        if blacklist:
            words = [word for path in blacklist for word in _words(path)]
            rules["blacklist"] = Blacklist(words)
        statistics = Statistics(frequent, posts=posts)
        replies = {**REPLY_RULES, "bland": statistics.bland, "everywhere": statistics.everywhere}
        cleaner = Cleaner(
            {name: edit for name, edit in EDITS.items() if name not in without},
            {name: rule for name, rule in rules.items() if name not in without},
            {name: rule for name, rule in replies.items() if name not in without},
            noise=noise, threshold=threshold, most_turns=most_turns, salvage=salvage, once=not keep_duplicates,
        )  # fmt: skip
        unread = _run(cleaner, statistics, source, target, removed, keep_going)
    except BadInputError as error:
        hint = "" if keep_going else " (--keep-going leaves such lines out)"
        raise click.ClickException(f"{error}{hint}; nothing was written") from error
    except ValueError as error:
        raise click.ClickException(f"{error}; nothing was written") from error
    found = {**cleaner.report.as_dict(), "unreadable": unread, **learned}
    if report is not None:
        report.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", "utf-8")
    _tell(found, target, removed)


def _run(cleaner: Cleaner, statistics: Statistics, source: Path, target: Path, removed: Path | None, keep: bool) -> int:
    """Both passes; the number of lines that could not be read."""
    ignored: list[BadInputError] = []
    size = source.stat().st_size
    with click.progressbar(length=size, label="counting", file=sys.stderr) as bar:
        for _, turns, _ in read_dialogues(source, ignored.append if keep else None, bar.update):
            statistics.add([cleaner.edited(turn) for turn in turns])
    cleaner.report.edited.clear()  # they are counted when they count
    with ExitStack() as files:
        out = files.enter_context(Writer(target))
        lost = None if removed is None else files.enter_context(Writer(removed))
        write = (lambda row: None) if lost is None else lost.write
        for error in ignored:
            write({"line": error.line, "reason": "unreadable", "message": str(error), "text": error.text})
        with click.progressbar(length=size, label="cleaning", file=sys.stderr) as bar:
            for number, turns, record in read_dialogues(source, (lambda _: None) if keep else None, bar.update):
                pieces, removals = cleaner.clean(turns)
                for piece in pieces:
                    out.write(piece)
                for removal in removals:
                    row = {"line": number, "reason": removal.reason, "turn": removal.turn, "turns": removal.turns}
                    write({**row, "before": record or turns})
    return len(ignored)


def _words(path: Path) -> list[str]:
    try:
        return [word for line in path.read_text("utf-8-sig").splitlines() if (word := line.strip())]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 (byte {error.start + 1})") from error


def _noise(
    examples: Path | None, scorer: str | None, threshold: float
) -> tuple[Callable[[Sequence[str]], float] | None, dict[str, object]]:
    """The filter that is asked for, and what the report says of it."""
    if examples is not None and scorer is not None:
        raise ValueError("--noise-examples and --scorer are two noise filters; choose one")
    if scorer is not None:
        module, _, name = scorer.partition(":")
        try:
            return getattr(importlib.import_module(module), name), {"noise filter": scorer}
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"--scorer {scorer} must be MODULE:NAME of a function ({error})") from error
    if examples is None:
        return None, {}
    from papercode.decoders.lccc_noise import NoiseClassifier, accuracy  # needs numpy, which the rules do not

    dialogues, answers = [], []
    for number, turns, record in read_dialogues(examples):
        if not isinstance(record.get("noise"), bool):
            raise BadInputError(examples, number, 'has no "noise": true or false')
        dialogues.append(turns)
        answers.append(record["noise"])
    held = slice(4, None, 5)  # every fifth is kept back, to see what the filter is worth
    rest = [i for i in range(len(answers)) if i % 5 != 4]
    filtering = NoiseClassifier().fit([dialogues[i] for i in rest], [answers[i] for i in rest])
    worth = accuracy(filtering, dialogues[held], answers[held], threshold)
    told = {"trained on": len(rest), "tried on": len(answers) - len(rest), "accuracy": round(worth, 4)}
    return filtering, {"noise filter": told if len(answers) > len(rest) else {**told, "accuracy": None}}


def _tell(found: dict, target: Path, removed: Path | None) -> None:
    click.echo(f"{found['read']} dialogues read, {found['kept']} written to {target}", err=True)
    for reason, count in found["removed"].items():
        click.echo(f"  {count:>8} removed: {reason}", err=True)
    if found["unreadable"]:
        click.echo(f"  {found['unreadable']:>8} lines could not be read", err=True)
    for edit, count in found["edited"].items():
        click.echo(f"  {count:>8} turns edited: {edit}", err=True)
    if removed is not None:
        click.echo(f"what was removed is in {removed}", err=True)


if __name__ == "__main__":
    main()

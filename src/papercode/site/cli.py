"""The `papercode` command: start a note, run its snippets, check everything."""

import importlib
import sys
from pathlib import Path

try:
    import click

    from papercode.site.check import check as check_project
    from papercode.site.notebook import notebook as make_notebook
    from papercode.site.places import Places
    from papercode.site.project import Project
    from papercode.site.runner import progress_bar
    from papercode.site.scaffold import scaffold
    from papercode.site.update import updated
except ModuleNotFoundError as error:  # installed without what the site needs
    sys.exit(f"papercode: {error.name} is missing; install the site's packages with: pip install 'papercode[site]'")

PROJECT = click.Path(exists=True, file_okay=False, path_type=Path)
PAGE = click.Path(exists=True, path_type=Path)

# \b keeps click from joining the lines
HELP = """Notes on papers in which every claim is code that runs.

\b
Start a note:   papercode new adaptation/lora --key hu2022lora
Run it:         papercode run papers/adaptation/lora.md
Check it:       papercode check papers/adaptation/lora.md
Read it:        mkdocs serve
Take it away:   papercode notebook papers/adaptation/lora.md
Clean dialogues as LCCC was cleaned: papercode clean-dialogues --help
"""


# commands that need no project, by the module that has them as `main`; imported when they are called or listed
TOOLS = {"clean-dialogues": "papercode.decoders.lccc_cleaning"}


class Commands(click.Group):
    """The commands of this file, and the tools that notes bring along."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Their names, in order."""
        return sorted([*super().list_commands(context), *TOOLS])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """One of them."""
        if name in TOOLS:
            return importlib.import_module(TOOLS[name]).main
        return super().get_command(context, name)


@click.group(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--project", "root", type=PROJECT, default=".", help="A folder of the project. [default: this one]")
@click.pass_context
def main(context: click.Context, root: Path) -> None:
    """Finds the project that every command works on, tools aside."""
    if context.invoked_subcommand in TOOLS:
        return
    try:
        context.obj = Project.find(root)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("name", metavar="FAMILY/NAME")
@click.option("--key", required=True, help="The paper's key in references.bib, such as hu2022lora.")
@click.option("--title", help="What people call the paper. [default: made from NAME]")
@click.pass_obj
def new(project: Project, name: str, key: str, title: str | None) -> None:
    """Start a paper: bibliography stub, note, module and test from templates.

    Nothing that exists is overwritten. The record of a paper in papers/listed.yaml moves into its note.
    """
    try:
        written = scaffold(project, name, key, title)
    except (ValueError, FileExistsError) as error:
        raise click.ClickException(str(error)) from error
    click.echo("Wrote")
    for path in written:
        moved = "  (its record is in the note now)" if path.name == "listed.yaml" else ""
        click.echo(f"  {project.relative(path)}{moved}")
    entry = "authors and venue in references.bib, " if project.root / "references.bib" in written else ""
    click.echo(
        f"\nNow fill in every TODO: {entry}the paper's idea in the module, its proof in the test, and the note.\n"
        f"`papercode check papers/{name}.md` lists what is left, `make serve` shows the page."
    )


def _pages(project: Project, paths: tuple[Path, ...]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        path = path.resolve()
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path]
    wrong = [path for path in found if path.suffix != ".md"]
    if wrong:
        raise click.ClickException(f"{project.relative(wrong[0])} is no Markdown page")
    return found


@main.command()
@click.argument("pages", type=PAGE, nargs=-1, required=True)
@click.option("--update", is_flag=True, help="Write the actual outputs into the page.")
@click.option("--fresh", is_flag=True, help="Run again even what is known.")
@click.option("--jobs", type=click.IntRange(1), help="Pages at a time. [default: one a core]")
@click.pass_obj
def run(project: Project, pages: tuple[Path, ...], update: bool, fresh: bool, jobs: int | None) -> None:
    """Run the snippets of PAGES (files or folders) and print what differs.

    Exits with 1 if anything differs, also when --update has just mended it.
    """
    sessions = {path: project.session(path) for path in _pages(project, pages)}
    outcomes = project.runner(cached=not fresh, jobs=jobs).run(sessions.values(), progress_bar())
    problems = [problem for session in sessions.values() for problem in outcomes[session.path].problems]
    for problem in problems:
        click.echo(problem)
    if update:
        for path, session in sessions.items():
            text = path.read_text("utf-8")
            new_text = updated(text, outcomes[session.path])
            if new_text != text:
                path.write_text(new_text, "utf-8")
                click.echo(f"updated {session.path}: read the difference before you believe it")
    ran = sum(len(session.fences) for session in sessions.values())
    click.echo(f"{ran} snippets on {len(sessions)} pages, {len(problems)} problems")
    if problems:
        sys.exit(1)


@main.command()
@click.argument("pages", type=PAGE, nargs=-1)
@click.option("--no-run", is_flag=True, help="Leave the snippets out.")
@click.pass_obj
def check(project: Project, pages: tuple[Path, ...], no_run: bool) -> None:
    """Check PAGES (everything if none are named); each finding is printed as file:line: message.

    Headings, front matter, citations, formulas, links between note and module, and every snippet.
    """
    chosen = _pages(project, pages) if pages else None
    problems = check_project(project, chosen, run=not no_run)
    for problem in problems:
        click.echo(problem)
    click.echo(f"{len(problems)} problems" if problems else "no problems")
    if problems:
        sys.exit(1)


@main.command()
@click.argument("page", type=PAGE)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: NAME.ipynb, here]")
@click.pass_obj
def notebook(project: Project, page: Path, output: Path | None) -> None:
    """Write the note PAGE as a Jupyter notebook that runs as it is.

    The outputs in it are those of the page; a snippet that fails keeps it from being written.
    """
    note = project.by_path.get(page.resolve())
    if not note:
        raise click.ClickException(f"{page} is no note: those are the .md files below {project.papers}")
    session = project.session(note.path)
    outcome = project.runner().run([session], progress_bar())[session.path]
    for problem in outcome.problems:
        click.echo(problem)
    if outcome.problems:
        sys.exit(1)
    output = output or Path(f"{note.path.stem}.ipynb")
    output.write_text(make_notebook(note, outcome, project, Places.read(project)), "utf-8")
    click.echo(f"Wrote {output}")

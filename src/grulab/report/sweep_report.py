"""Write the report of a sweep, finished or not: leaderboard.md, leaderboard.csv, figures and report.html."""

import base64
import html
import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from rich.console import Console

from grulab.config.validation_messages import shown_value
from grulab.report import sweep_figures
from grulab.report.evaluation_sections import baseline_table, class_section
from grulab.report.leaderboard import Leaderboard, effects, read_sweep, worth
from grulab.report.mean_curves import write_mean_curves
from grulab.report.search_sections import recommend_found, search_sections
from grulab.report.sections import Section, print_sections, to_markdown
from grulab.report.verdict import Verdict, stopped_at_rungs
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.system.atomic import write_atomically
from grulab.system.child import Child, ChildFailedError
from grulab.system.regular_file import refuse_odd_kinds
from grulab.tasks.base import ceiling_in_words

TABLE, TEXT, PAGE = "leaderboard.csv", "leaderboard.md", "report.html"
FIGURES = {
    "search.png": sweep_figures.draw_search,
    "effects.png": sweep_figures.draw_effects,
    "pareto.png": sweep_figures.draw_pareto,
    "learning.png": sweep_figures.draw_learning,
    "confusion.png": sweep_figures.draw_confusion_of_best,
}
_FEWEST_PAIRS = 3
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
img { max-width: 100% } pre, code { background: #f5f5f5; padding: .1rem .3rem }
"""


def write_report(sweep_dir: Path | str, console: Console | None = None) -> Leaderboard:
    """Write leaderboard.csv, leaderboard.md, figures/, means/ and report.html in a sweep's folder, finished or not.

    Args:
        sweep_dir: the sweep's folder.
        console: where to print the leaderboard, or None.

    Raises:
        ConfigError: if the folder is not a sweep's folder.
    """
    sweep_dir = Path(sweep_dir)
    board = read_sweep(sweep_dir)
    figures = sweep_dir / paths.FIGURES
    files = [*(sweep_dir / name for name in (TABLE, TEXT, PAGE)), *(figures / name for name in FIGURES)]
    refuse_odd_kinds(files, [figures])
    pictures = _pictures(board, figures)
    if pictures:
        figures.mkdir(exist_ok=True)
    drawing = _begin_to_draw(board, pictures)
    verdict = None if board.ranking.empty else Verdict(board)
    sections = [*_results(board, verdict), *_failures(board), *_lost_curves(board)]
    title = f"{sweep_dir.resolve().parent.name}, {sweep_dir.resolve().name}"
    if not board.ranking.empty:
        write_mean_curves(board)
    write_atomically(sweep_dir / TABLE, _with_recommendation(board, verdict).to_csv(index=False))
    if console is not None:
        print_sections(sections, console)
    drawing()
    images = "".join(f"\n![{path.stem}](figures/{path.name})\n" for path in pictures)
    write_atomically(sweep_dir / TEXT, to_markdown(title, sections) + images)
    write_atomically(sweep_dir / PAGE, _page(title, sections, pictures))
    if console is not None:
        console.print(f"\nreport  {display_path(sweep_dir / PAGE)}", highlight=False, soft_wrap=True)
    return board


def _results(board: Leaderboard, verdict: Verdict | None) -> list[Section]:
    if verdict is None:
        return [Section("Leaderboard", f"{_states(board)} No job has a result yet.")]
    return [*_recommendation(board, verdict), _ranking(board, verdict), *_insights(board, verdict)]


def _states(board: Leaderboard) -> str:
    states = ", ".join(f"{count} {status}" for status, count in board.jobs["status"].value_counts().items())
    return f"{len(board.jobs)} jobs: {states}."


def _recommendation(board: Leaderboard, verdict: Verdict) -> list[Section]:
    text = verdict.recommendation() if board.seeds is None else recommend_found(board)
    return [] if text is None else [Section("Recommendation", text)]


def _with_recommendation(board: Leaderboard, verdict: Verdict | None) -> pd.DataFrame:
    """Return the ranking, where the configuration to use is marked."""
    if verdict is None:
        return board.ranking
    # A search recommends the first, over seeds that did not choose it.
    place = verdict.recommended if board.seeds is None else 0
    rank = None if place is None else verdict.rows["rank"].iloc[place]
    return board.ranking.assign(recommended=board.ranking["rank"] == rank)


def _ranking(board: Leaderboard, verdict: Verdict) -> Section:
    text, ranking = _states(board), board.ranking
    table = pd.DataFrame({"rank": ranking["rank"]})
    for key in [*board.swept, *board.tuned, *board.tied]:
        table[board.short(key)] = ranking[key].map(shown_value)
    for tag in dict.fromkeys([board.metric, "test/accuracy"]):
        table[tag] = [_span(row[tag], row[f"{tag} low"], row[f"{tag} high"]) for _, row in ranking.iterrows()]
    if len(verdict.rows) > 1 and ranking["seeds"].max() > 1:
        shares = [f"{share:.0%}" for share in verdict.shares]
        table["first"] = [*shares, *[""] * (len(ranking) - len(shares))]
    if board.rungs:
        table["epochs"] = ranking["epochs"]
    repetitions = "seeds" if board.repeat == "seed" else "data seeds"
    table[repetitions] = ranking["seeds"]
    table["parameters"] = ranking["parameters"].map("{:,}".format)
    table["seconds"] = ranking["seconds"].map("{:.1f}".format)
    table["seq/s"] = ranking["sequences_per_second"].map("{:,.0f}".format)
    table["padding"] = ranking["padding"].map("{:.0%}".format)
    bounds = board.done[["chance", "ceiling"]].drop_duplicates()
    # In a table without a ceiling, pandas stores NaN.
    ceiling = None if pd.isna(bounds["ceiling"].iloc[0]) else float(bounds["ceiling"].iloc[0])
    words = f"chance {bounds['chance'].iloc[0]:.3f}, ceiling {ceiling_in_words(ceiling)}"
    if len(bounds) > 1:
        words = "the jobs have different tasks, with chance levels and ceilings of their own (summary.json)"
    extended = sum(bool(end) for end in board.done["own_end"])
    if extended:
        text += f" {extended} of them went on to another number of epochs than the sweep says."
    text += (
        f" Ranked by {board.metric}: the mean over {repetitions}, and its 95 % interval, of fewer than 3 the lowest "
    )
    text += f"and the highest; {words}."
    if board.repeat != "seed":
        text += " Jobs with the same data share the luck of their test sequences: their mean counts as one."
    if "first" in table:
        text += " First is how often it would have the best mean with other seeds."
    if stopped := stopped_at_rungs(board):
        text += f" {stopped}."
    if board.tuned:
        text += f" {', '.join(board.tuned)} is chosen for each configuration, by the same ranking"
        text += ", of what was not stopped at a rung before." if board.rungs else "."
    return Section("Leaderboard", text, table, dispensable=("test/accuracy", "first", "seconds", "seq/s", "padding"))


def _insights(board: Leaderboard, verdict: Verdict) -> list[Section]:
    best = board.best_job
    command = " ".join(["grulab train", *map(shlex.quote, best["arguments"])])
    sections = [
        *_winner(board, verdict),
        *_tuned(verdict),
        *_worth(board),
        Section(
            "The best job",
            f"{best['job']}: {board.metric} {best[board.metric]:.4f}, test accuracy {best['test/accuracy']:.4f}.\n\n"
            f"checkpoint  {display_path(best['folder'] / paths.CHECKPOINTS / paths.BEST)}\n\n"
            f"once more   {command}",
        ),
    ]
    # Jobs that were stopped at different rungs cannot be compared, and those of a search agree in nothing.
    for key in [] if board.rungs or board.seeds is not None else board.swept:
        table = effects(board, key)
        if len(table) < 2:
            continue
        cells = {
            board.short(key): [shown_value(value) for value in table["value"].tolist()],
            f"{board.metric}, all jobs": [_span(row["mean"], row["low"], row["high"]) for _, row in table.iterrows()],
            "jobs": table["jobs"],
            f"against {shown_value(table['value'].tolist()[0])}": [
                "" if index == 0 else _difference(row["difference"], row["difference_interval"], row["pairs"])
                for index, row in table.iterrows()
            ],
            "pairs": table["pairs"],
        }
        text = "Differences are over pairs of jobs that agree in everything else, the seed included."
        if board.repeat != "seed":
            text = "Differences are over pairs of means over seeds that agree in everything else, the data included."
        if board.tuned:
            text += f" {', '.join(board.tuned)} is the one chosen for each configuration."
        sections.append(Section(f"What {key} does on its own", text, pd.DataFrame(cells)))
    return sections


def _winner(board: Leaderboard, verdict: Verdict) -> list[Section]:
    if board.seeds is not None:
        return [*search_sections(board), *_sections_of(verdict.caveats()[1:])]
    return [Section("Is the winner better?", "\n\n".join([verdict.winner(), *verdict.caveats()]))]


def _sections_of(caveats: Sequence[str]) -> list[Section]:
    return [Section("What seeds do not tell", "\n\n".join(caveats))] if caveats else []


def _tuned(verdict: Verdict) -> list[Section]:
    lines = verdict.tuned_at_an_edge()
    return [Section("Tuned at an edge", "\n\n".join(lines))] if lines else []


def _worth(board: Leaderboard) -> list[Section]:
    """Return the comparison with simple classifiers, and the best job's classes, where the ceiling is unknown."""
    text, best = worth(board), board.best_job
    if text is None:
        return []
    table = baseline_table((one["name"], one["val"], one["test"]) for one in best["baselines"])
    sections = [Section("Is a GRU worth it here?", text, table)]
    if best["classes"]:
        sections.append(class_section(best["classes"], f"Of the best job, on its test sequences: {best['job']}."))
    return sections


def _failures(board: Leaderboard) -> list[Section]:
    failed = board.jobs[board.jobs["status"] != "done"]
    if failed.empty:
        return []
    table = failed[["job", "status", "error"]].rename(columns={"error": "cause"})
    go_on = f"grulab resume {display_path(board.folder)}"
    text = f"{len(failed)} of {len(board.jobs)} jobs. They go on with\n\n{go_on}"
    return [Section("Without a result", text, table)]


def _lost_curves(board: Leaderboard) -> list[Section]:
    lost = [job for job, table in board.curves.items() if table is None]
    if not lost:
        return []
    text = f"{paths.METRICS} is missing or damaged, so learning.png is without them."
    return [Section("Without a curve", text, pd.DataFrame({"job": lost}))]


def _pictures(board: Leaderboard, folder: Path) -> list[Path]:
    """Return the files of the figures that say something about this sweep."""
    if board.ranking.empty:
        return []
    pictures, best = [], board.best_job
    for name in FIGURES:
        is_search = board.seeds is not None
        if name == "search.png" and not is_search:
            continue
        if name == "effects.png" and (not board.swept or board.rungs or is_search):
            continue
        if name == "confusion.png" and not (best["baselines"] and best["confusion_matrix"]):
            continue
        pictures.append(folder / name)
    return pictures


def _begin_to_draw(board: Leaderboard, pictures: Sequence[Path]) -> Callable[[], None]:
    """Draw every second figure in a process of its own; return what draws the others and waits for it.

    Drawing takes two thirds of a report's time.
    """
    # A process that is forked beside other threads, as in a notebook, could wait for them for ever.
    child = Child(_draw, board, pictures[::2]) if pictures and threading.active_count() == 1 else None

    def end() -> None:
        _draw(board, pictures[1::2])
        if child is not None:
            with suppress(ChildFailedError):
                child.result()
                return
        # The error, if it was one, is raised here.
        _draw(board, pictures[::2])

    return end


def _draw(board: Leaderboard, pictures: Sequence[Path]) -> None:
    for picture in pictures:
        FIGURES[picture.name](board, picture)


def _page(title: str, sections: Sequence[Section], pictures: Sequence[Path]) -> str:
    """Return the report as one self-contained HTML file."""
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    for section in sections:
        paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in section.text.split("\n\n"))
        parts.append(f"<h2>{html.escape(section.title)}</h2>{paragraphs}")
        if section.table is not None:
            parts.append(section.table.to_html(index=False, border=0))
        if section.title == "Leaderboard":
            for picture in pictures:
                data = base64.b64encode(picture.read_bytes()).decode()
                parts.append(f'<img alt="{picture.stem}" src="data:image/png;base64,{data}">')
    return "\n".join(parts) + "\n"


def _span(mean: float, low: float, high: float) -> str:
    return f"{mean:.4f}" if low == high == mean else f"{mean:.4f} ({low:.3f} to {high:.3f})"


def _difference(mean: float, half: float, pairs: int) -> str:
    if not pairs:
        return ""
    # Of two pairs the interval tells nothing.
    return f"{mean:+.4f}" + ("" if pairs < _FEWEST_PAIRS else f" ± {half:.4f}")

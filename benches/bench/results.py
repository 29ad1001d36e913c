"""Tables in Markdown, and the files below benches/results/ that keep them with the machine's facts and the command."""

import datetime
import statistics

from .machine import ROOT, facts, say


def table(columns, rows):
    """Text of a table; `columns` is its head, with | between them."""
    head = f"| {columns} |\n|{'---|' * (columns.count('|') + 1)}\n"
    return head + "".join(f"| {' | '.join(str(cell) for cell in row)} |\n" for row in rows)


def spread(values, digits=3):
    """The median, and the least and the largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} – {max(values):.{digits}f})"


def keep(name, title, text, content, command, *more_facts):
    """Writes a result and shows it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    path = ROOT / f"benches/results/{now:%Y-%m-%dT%H%M%SZ}-{name}.md"
    whole = f"# {title}, {now:%Y-%m-%d}\n\n{text}\n\n{content}\nMachine: {facts(*more_facts)}.\n\nCommand: `{command}`\n"
    path.write_text(whole, encoding="utf-8")
    print(whole, end="")
    say(f"kept as {path.relative_to(ROOT)}")

"""Questions for people to look at, and what they made of them: a table with contact sheets, and back."""

import csv
from pathlib import Path

from vgr_rl.benchmarks.choice import Item
from vgr_rl.benchmarks.loading import load_questions
from vgr_rl.benchmarks.treebench import TREEBENCH
from vgr_rl.benchmarks.tsv import Row, read_tsv, write_tsv
from vgr_rl.data.contact_sheet import Panel, contact_sheet, upright_picture
from vgr_rl.errors import bullet_list

TABLE = "review.csv"
_PANELS = 12  # of a sheet
_FIELDS = ("category", "question", "multi-choice options", "answer", "target_instances")
_VERDICTS = ("keep", "drop")
_COLUMNS = ("index", "sheet", *_FIELDS, "verdict", "note")


def export_review(data: Path, folder: Path) -> int:
    """Write review.csv and contact sheets with the pictures, the boxes and the questions; return how many questions.

    A reviewer writes keep or drop under `verdict`, and may change everything between `sheet` and it.

    Raises:
        ValueError: if the data cannot be used, or the folder has a review.csv, in which somebody may have written.
    """
    table = folder / TABLE
    if table.exists():
        raise ValueError(f"{table} exists, and somebody may have written in it; give another --out")
    items = TREEBENCH.load(data)
    rows = {row["index"]: row for row in read_tsv(data)}
    folder.mkdir(parents=True, exist_ok=True)
    sheets: dict[str, str] = {}
    for number, start in enumerate(range(0, len(items), _PANELS), start=1):
        own = items[start : start + _PANELS]
        contact_sheet(map(_panel, own)).save(folder / f"sheet_{number:03}.png")
        sheets |= {item.key: f"sheet_{number:03}.png" for item in own}
    with table.open("w", encoding="utf-8-sig", newline="") as file:  # spreadsheets take it for UTF-8 only so
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for item in items:
            fields = {name: rows[item.key][name] for name in _FIELDS}
            writer.writerow({"index": item.key, "sheet": sheets[item.key], **fields, "verdict": "", "note": ""})
    return len(items)


def import_review(data: Path, table: Path, out: Path, partial: bool) -> int:
    """Write the questions that were kept, as they were changed, in TreeBench's format; return how many.

    Args:
        data: what was reviewed; the pictures are taken from there.
        table: the reviewed file.
        out: the file to write.
        partial: questions without a verdict are left out; else they are an error.

    Raises:
        ValueError: listing every row that cannot be used; nothing is written.
    """
    images = {row["index"]: row["image"] for row in read_tsv(data)}
    reviewed = _read(table)
    kept: list[Row] = []
    absent = [] if partial else [index for index in images if index not in reviewed]
    problems = [f"index={index} is not in the table" for index in absent]
    for index, row in reviewed.items():
        verdict = row["verdict"].strip().lower()
        if index not in images:
            problems.append(f"index={index} is not in {data}")
        elif verdict not in _VERDICTS and not (partial and not verdict):
            problems.append(f"index={index}: verdict={row['verdict']!r} is not one of {', '.join(_VERDICTS)}")
        elif verdict == "keep":
            kept.append({"index": index, "image": images[index], **{name: row[name] for name in _FIELDS}})
    if problems:
        raise ValueError(f"{table}, {len(problems)} rows (--partial leaves out those without a verdict):\n"
                         f"{bullet_list(problems)}")  # fmt: skip
    load_questions(table, "a reviewed file", len(images), kept, TREEBENCH.question)
    return write_tsv(out, kept)


def _read(table: Path) -> dict[str, dict[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if absent := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{table} has no column {absent[0]}; expected {', '.join(_COLUMNS)}")
        rows = list(reader)
    by_index = {row["index"]: {name: value or "" for name, value in row.items()} for row in rows}
    if len(by_index) != len(rows):
        raise ValueError(f"{table} has {len(rows)} rows but {len(by_index)} different index")
    return by_index


def _panel(item: Item) -> Panel:
    picture = upright_picture(item.encoded_images()[0])
    text = f"{item.key}, {item.category}: {item.question} {' '.join(item.options_text.splitlines())}"
    return Panel(picture, item.targets_orig_px, text, [f"answer {item.answer}, {len(item.targets_orig_px)} boxes"])

"""Put a report on disk: report.json, report.md, report.html and the pictures."""

from __future__ import annotations

from pathlib import Path

from journeyman.errors import StoreError
from journeyman.evaluation.markdown import report_markdown
from journeyman.evaluation.page import report_page
from journeyman.evaluation.pictures import draw_heldout, draw_loss, draw_steps
from journeyman.evaluation.report import Report, readable
from journeyman.redaction import redact


def write_report(report: Report, folder: Path) -> Path:
    """Write all forms of the report into `folder` (made if needed) and return the path of the HTML page.

    `report.json` reads back with `read_report`. Raises StoreError when the folder cannot be written.
    """
    report = readable(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {
            "Reward and success per training step": draw_steps(report, folder / "steps.png"),
            "Loss": draw_loss(report, folder / "loss.png"),
            "Held-out success": draw_heldout(report, folder / "heldout.png"),
        }
        pictures = {title: path for title, path in drawn.items() if path is not None}
        (folder / "report.json").write_text(redact(report.model_dump_json(indent=2)) + "\n", encoding="utf-8")
        names = {title: path.name for title, path in pictures.items()}
        (folder / "report.md").write_text(redact(report_markdown(report, names)), encoding="utf-8")
        page = folder / "report.html"
        page.write_text(redact(report_page(report, pictures)), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"the report cannot be written into {folder}: {error}", hint="check that the folder is writable and the disk not full"
        ) from error
    return page


def read_report(folder: Path) -> Report:
    """The report that `write_report` put there. Raises StoreError when there is none."""
    path = folder / "report.json"
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "a run writes it when it ends: go on with it; or evaluate it as it is: journeyman eval RUN"
        raise StoreError(f"there is no readable report in {folder}: {error}", hint=hint) from error

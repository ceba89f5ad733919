"""Sentences for the page about what a run of `reproduce` measured beside the paper's rows, and what it left out."""

from __future__ import annotations

from vggbench import plan, runs_inputs
from vggbench.images import Dataset
from vggbench.runs_inputs import Request


def notes(request: Request, dataset: Dataset, work: plan.Plan) -> list[str]:
    """Sentences for the page about what this run left out."""
    found = []
    most = max(row.images for row in work.rows)
    fewer = {row.images for row in work.rows if row.images < most}
    if most < dataset.total:
        found.append(
            f"Measured on the first {most:,} of {dataset.total:,} images, in a fixed order that keeps classes even."
        )
    for count in sorted(fewer):
        found.append(
            f"Rows with multi-crop testing (150 crops an image) were measured on {count:,} images; --full takes all."
        )
    if request.authors:
        found.append(f"The weights given are {runs_inputs.AUTHORS_AS_STATED}; the verdicts rest on that.")
    found += request.left_out
    if not request.on_sample and any(row.claim is None for row in work.rows):
        found.append(
            "Beside the paper's rows, views were measured that other people's figures of these files need; --anchors "
            "says which."
        )
    public, unpublished = plan.published(work.missing)
    if public:
        found.append(f"Not measured, because no weights were given: {', '.join(public)}.")
    if unpublished:
        found.append(f"Not measured, because nobody published weights and none were given: {', '.join(unpublished)}.")
    return found

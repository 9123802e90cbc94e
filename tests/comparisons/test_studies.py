"""Shared parts of the examples that compare losses."""

import json

import pytest
import torch
from studies.document import Document
from studies.figures import spread
from studies.finished import FinishedRuns
from studies.significance import sign_of_difference


def finished(directory):
    return FinishedRuns(directory, lambda run: {"settings": run})


def test_results_come_back_and_half_a_line_does_no_harm(tmp_path):
    accuracies = torch.rand(2, 3) * 100
    kept = finished(tmp_path)
    kept["first"] = accuracies
    kept["second"] = accuracies + 1
    lines = (tmp_path / "runs.jsonl").read_text()
    (tmp_path / "runs.jsonl").write_text(lines[:-30])

    kept = finished(tmp_path)
    assert torch.equal(kept["first"], accuracies)
    assert "second" not in kept
    kept["third"] = accuracies + 2
    assert torch.equal(finished(tmp_path)["third"], accuracies + 2)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [
        '{"settings": "first"}',
        '{"settings": "third"}',
    ]


def test_a_page_keeps_the_text_above_its_own(tmp_path):
    def write(text):
        document = Document(tmp_path, "page", "Title", "a command")
        document.add(text)
        return document.write()

    page = write("old")
    assert page.read_text().startswith("# Title\n\n<!-- Written by a command ")
    page.write_text("Words of a person.\n\n" + page.read_text())
    assert write("new").read_text() == (
        "Words of a person.\n\n# Title\n\n"
        "<!-- Written by a command from here on; what stands above is kept. -->\n\nnew\n"
    )


def test_a_difference_counts_where_chance_does_not_explain_it():
    theirs = torch.tensor([80.0, 82, 78, 81, 79])
    jitter = torch.tensor([0.1, -0.1, 0.2, 0, -0.2])
    assert sign_of_difference(theirs + 3 + jitter, theirs) == 1
    assert sign_of_difference(theirs - 3 + jitter, theirs) == -1
    assert sign_of_difference(theirs + jitter, theirs) == 0
    assert sign_of_difference(theirs + 1 + 10 * jitter, theirs) == 0
    assert sign_of_difference(theirs[:1] + 3, theirs[:1]) == 0
    assert sign_of_difference(theirs, theirs) == 0


def test_names_of_lines_keep_their_distance():
    assert spread([3, 1, 1.5, 1.3], 1) == pytest.approx([3.2, 0.2, 2.2, 1.2])
    assert spread([1, 5, 9], 1) == [1, 5, 9]

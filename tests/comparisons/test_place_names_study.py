"""The study of place names chooses by validation, and its page says what was found."""

import csv
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from place_names import figures, plan, tables
from place_names.kept import Kept
from place_names.losses import CROSS_ENTROPY, LOSSES, MAIN, SCALED, SMOOTH
from place_names.page import write
from place_names.study import Study, Trial, on_test_names, recipe
from place_names.training import Condition, Recipe, Run

from triton_topk import lq_loss, smooth_svm

COMMAND = Path(__file__).parents[2] / "examples" / "place_names.py"
SEEDS = 3


def finished(studies):
    """Made-up accuracies of everything in the studies: the same every time, and different."""
    results = {}
    for study in studies:
        for trial in study.trials:
            for run in trial.tried():
                generator = torch.Generator().manual_seed(len(results))
                for seed in range(SEEDS):
                    accuracies = 30 + 30 * torch.rand(2, 3, generator=generator)
                    results.setdefault(run._replace(seed=seed), accuracies.sort().values)
    return results


def test_every_loss_has_as_many_settings():
    for study in plan.full():
        for trial in study.trials:
            settings = trial.tried()
            assert len(set(settings)) == len(settings) == len(study.baseline(trial).tried())


def test_the_choice_is_by_validation_accuracy_never_by_test_accuracy():
    trial = Trial(Condition(), CROSS_ENTROPY)
    runs = trial.tried()
    results = {
        run._replace(seed=seed): torch.tensor([[i, -i, 0.0], [seed, 100 + seed - i, 0]])
        for i, run in enumerate(runs)
        for seed in range(2)
    }
    assert trial.by_top_1().chosen(results) == runs[-1]
    assert trial.chosen(results) == runs[0]
    assert on_test_names(results, trial.by_top_1(), 2)[:, 0].tolist() == [0, 1]
    assert on_test_names(results, trial, 2)[:, 1].tolist() == [100, 101]


def test_a_loss_is_compared_with_the_first_that_has_the_same_condition_and_settings():
    study = plan.full()[0]
    for trial in study.trials:
        baseline = study.baseline(trial)
        assert baseline.loss == CROSS_ENTROPY
        assert baseline._replace(loss=trial.loss) == trial


def test_settings_follow_the_scale_of_the_scores():
    first = Trial(Condition(), CROSS_ENTROPY).tried()[-1].recipe
    scaled = Trial(Condition(), SMOOTH).tried()[-1].recipe
    assert scaled == pytest.approx((first.lr * 5**0.5, first.decay / 5**0.5))


@pytest.mark.parametrize("name", [name for name in LOSSES if name.startswith((SCALED, SMOOTH))])
def test_the_scale_is_that_of_the_scores(name):
    """Scores `scale` times smaller give the loss of scale 1 and margin 1 / scale, over `scale`."""
    scores = 3 * torch.randn(64, 30, dtype=torch.float64)
    labels = torch.randint(30, (64,))
    loss, k = LOSSES[name], LOSSES[name].options["k"]
    unit = scores / loss.scale
    if loss.name == "scaled_cross_entropy":
        expected = F.cross_entropy(unit, labels)
    else:
        expected = smooth_svm(unit, labels, k=k, tau=1 / k, margin=1 / loss.scale)
    assert loss.function(scores, labels) / loss.scale == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in LOSSES if "mixture" in name])
def test_a_mixture_has_its_parts(name):
    scores = 3 * torch.randn(64, 30, dtype=torch.float64)
    labels = torch.randint(30, (64,))
    _, options, scale = LOSSES[name]
    mix, q, tau = (options[part] for part in ("mix", "q", "tau"))
    svm = smooth_svm(scores, labels, k=5, tau=tau, margin=tau)
    expected = mix * svm + (1 - mix) * lq_loss(scores, labels, q=q)
    assert LOSSES[name].function(scores, labels) == pytest.approx(expected)
    assert scale == 5 * tau


def test_the_control_is_cross_entropy_of_smaller_initial_weights():
    """Over its scale it trains as cross-entropy whose embeddings and weights begin so much smaller."""
    labels = torch.randint(9, (40,))
    start = torch.randn(40, 6, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)

    def trained(name, factor):
        loss, root = LOSSES[name], LOSSES[name].scale ** 0.5
        parameters = [(part * factor).requires_grad_() for part in start]
        lr, decay = recipe(name, 0.02, 0.2)
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, eps=0)
        for _ in range(30):
            optimizer.zero_grad()
            loss.function(parameters[0] @ parameters[1].T, labels).backward()
            optimizer.step()
        return [part.detach() / root for part in parameters]

    for ours, theirs in zip(trained(SCALED, 1), trained(CROSS_ENTROPY, 5**-0.5), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_page_has_every_study_and_says_what_sets_conditions_apart(tmp_path):
    studies = plan.full()
    results = finished(studies)
    page = write(results, studies, SEEDS, tmp_path, "all").read_text()
    for study in studies:
        section = page.partition(f"\n## {study.title}\n")[2].partition("\n## ")[0]
        assert section.count("\n| ") == len(study.trials) + 1
        assert study.question in section
    assert re.search(r"\n\| 40 % noise +\| smooth SVM +\| ", page)
    assert re.search(r"\n\| width 8 +\| smooth SVM +\| ", page)
    for figure in re.findall(r"\((.*\.png)\)", page):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = [
        row
        for row in rows
        if (row["width"], row["loss"], row["lr"], row["decay"], row["seed"])
        == ("8", CROSS_ENTROPY, "0.05", "0.2", "0")
    ]
    expected = results[Run(Condition(width=8), CROSS_ENTROPY, Recipe(0.05, 0.2), 0)][1, 1]
    assert float(row["test top-5"]) == pytest.approx(float(expected), abs=1e-3)
    assert len(rows) == len({tuple(row.values()) for row in rows})
    assert len(list(tmp_path.glob("*.png"))) == page.count(".png)") == 4


def test_a_row_has_means_errors_and_the_paired_difference():
    study = Study(
        "title", "question?", [Trial(Condition(), loss) for loss in (CROSS_ENTROPY, SMOOTH)]
    )
    results = {
        run._replace(seed=seed): torch.tensor([[10.0, 30, 40], [10, 30, 40]])
        + seed * torch.tensor([1.0, 2, 3])
        + (trial.loss == SMOOTH) * torch.tensor([-1.0, 5 + 0.01 * seed, 0])
        for trial in study.trials
        for run in trial.tried()
        for seed in range(SEEDS)
    }
    first, ours = (tables.row(results, study, trial, SEEDS) for trial in study.trials)
    assert list(first.items())[3:] == [
        ("top-1", "11.0 ± 0.6"),
        ("top-5", "32.0 ± 1.2"),
        ("top-10", "43.0 ± 1.7"),
        ("top-5 difference", ""),
        ("top-1 alone", "11.0 ± 0.6"),
        ("top-1 difference", ""),
    ]
    assert ours["top-5 difference"] == "+5.0 ± 0.0 ↑"
    assert ours["top-1 difference"] == "-1.0 ± 0.0"


def test_figures_have_a_panel_for_every_condition_and_name_every_line():
    studies = {study.title: study for study in plan.full()}
    results = finished(studies.values())
    figure = figures.differences(results, studies["Label noise"], SEEDS)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        f"{noise} % noise" for noise in (0, 20, 40, 60)
    ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(MAIN)[1:]
    figure = figures.against_tau(results, studies["tau"], SEEDS)
    assert {text.get_text() for text in figure.axes[0].texts} == {CROSS_ENTROPY, SCALED, SMOOTH}


def load_command():
    spec = importlib.util.spec_from_file_location("place_names_command", COMMAND)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    return command


@pytest.mark.parametrize("wrong", ["--seeds 0", "--workers -1", "--task city", "--ask"])
def test_wrong_arguments_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        load_command().parse(wrong.split())
    assert f"error: argument {wrong.split()[0]}: " in capsys.readouterr().err


def test_keys_have_every_setting(tmp_path):
    run = Run(Condition(), SMOOTH, Recipe(0.1, 0), 0)
    changed = [run._replace(loss=loss) for loss in LOSSES]
    changed += [run._replace(seed=1), run._replace(recipe=Recipe(0.2, 0))]
    changed += [
        run._replace(condition=Condition()._replace(**{field: "other"}))
        for field in Condition._fields
    ]
    assert len({Kept(tmp_path).key(run) for run in changed}) == len(changed)


@pytest.mark.exhaustive
def test_the_command_trains_answers_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    command = load_command()
    monkeypatch.setattr(plan, "SMALL", Condition(fraction=0.005, epochs=1))
    monkeypatch.setattr(plan, "MAIN", [CROSS_ENTROPY, SMOOTH])
    monkeypatch.setattr(plan, "CONTROLLED", [CROSS_ENTROPY])
    arguments = ["--task", "country", "--seeds", "2", "--out", str(tmp_path), "--ask"]
    monkeypatch.setattr(sys, "argv", ["", *arguments, "san josé", "Not A Place"])
    command.main()
    out = capsys.readouterr().out
    assert "| smooth SVM" in out
    assert "san josé: found in " in out
    assert "Not A Place: found in 0 of 199 classes" in out
    assert len(re.findall(r"\d\.\d % \w", out)) >= 2 * 2 * 5  # names, losses, guesses
    assert (tmp_path / "place-names-country-losses.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / ".place-names-cache" / "runs.jsonl").read_text().splitlines()
    assert 2 * 6 + 4 <= len(lines) <= 2 * 6 + 4 + 2 * 3  # settings, and seeds of the best

    page = (tmp_path / "place-names-country.md").read_text()
    monkeypatch.setattr(command, "train", None)  # nothing is left to train
    command.main()
    assert (tmp_path / "place-names-country.md").read_text() == page


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_the_readme_has_the_numbers_of_the_report():
    root = COMMAND.parents[1]
    report = (root / "reports" / "place-names.md").read_text()
    section = report.partition("\n## Label noise\n")[2].partition("\n## ")[0]
    lines = [cells(line) for line in section.splitlines() if line.startswith("| ")]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]

    def mean(loss, accuracy, noise="0 % noise", *, decays=True):
        (found,) = [
            row[accuracy].partition(" ")[0]
            for row in rows
            if (row["condition"], row["loss"]) == (noise, loss)
            and (row["decay"] != "none") == decays
        ]
        return found

    readme = (root / "README.md").read_text().partition("## Effect on accuracy")[2]
    table = re.findall(r"^\| .*", readme.partition("\n## ")[0], re.MULTILINE)[1:]
    assert len(table) == 4
    for loss, *numbers in map(cells, table):
        assert numbers == [
            *(mean(loss, f"top-{k}") for k in (1, 5, 10)),
            mean(loss, "top-5", decays=False) if loss in plan.CONTROLLED else "",
            mean(loss, "top-1 alone", "60 % noise"),
        ]

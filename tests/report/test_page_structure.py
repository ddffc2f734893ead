"""The page as a browser and a screen reader take it: marks, labels, tables, contrast, what stands where."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import typing
from importlib.resources import files

import pytest
from report_samples import PNG, sample

from edgeprune.records.report import Report
from edgeprune.report import render_html, render_table, validate_report, words
from edgeprune.report.choices import front_section
from edgeprune.report.next_steps import commands
from edgeprune.report.scatter import Box, Mark, place_label, scatter_chart

MARK = re.compile(r'<(circle|rect|polygon) class="([a-z ]+)" ([^>]*)><title>([^<]*)</title>')
TEXT = re.compile(r'<text class="(value|tick)" x="([\d.-]+)" y="([\d.-]+)" text-anchor="middle">([^<]+)<')
SERIES = {
    "closed form": ("circle", True),
    "fine-tuned": ("circle", False),
    "closed form, 8 bits": ("square", True),
    "fine-tuned, 8 bits": ("square", False),
}


def plot(points, **more):
    return scatter_chart(
        points, title="t", x_form=str, y_form=str, x_title="cost", y_title="change", **more
    )  # fmt: skip


def centre(tag, attributes):
    """Middle and half width of a mark."""
    value = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
    if tag == "circle":
        return float(value["cx"]), float(value["cy"]), float(value["r"])
    if tag == "rect":
        size = float(value["width"]) / 2
        return float(value["x"]) + size, float(value["y"]) + size, size
    xs, ys = zip(*(map(float, p.split(",")) for p in value["points"].split()), strict=True)
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, (max(xs) - min(xs)) / 2


@pytest.mark.parametrize("seed", range(6))
def test_the_legend_shows_the_mark_that_the_points_have(seed):
    """In any order, and where a series is missing: shape and filling follow from the file, not the place."""
    rng = random.Random(seed)
    names = rng.sample(sorted(SERIES), rng.randint(2, 4))
    points = [
        Mark(rng.random(), rng.random(), f"{name}/{i}", name, *SERIES[name])
        for name in names
        for i in range(3)
    ]
    rng.shuffle(points)
    marks = {label: (tag, kind) for tag, kind, _, label in MARK.findall(plot(points))}
    for name in names:
        assert {marks[f"{name}/{i}"] for i in range(3)} == {marks[name]}
    assert len({marks[name] for name in names}) == len(names)


@pytest.mark.parametrize("seed", range(40))
def test_no_label_covers_a_mark_or_another_label(seed):
    """The shipped file's name was printed over its neighbour."""
    rng = random.Random(seed)
    points = [Mark(rng.random(), rng.random(), f"p{i}", "a") for i in range(14)]
    points += [Mark(points[0].x + 0.01, points[0].y, "shipped", "b", strong=True, named=True)]
    points += [Mark(1.0, 0.5, "dense", "dense network", "diamond", named=True, joined=False)]
    chart = plot(points, limit=(rng.random(), "allowed loss 0.5"))
    marks = [(centre(tag, rest), label) for tag, _, rest, label in MARK.findall(chart)]
    assert len(marks) == 16 + 3  # and the legend
    labels = []
    for _, x, y, text in TEXT.findall(chart):
        if text in ("shipped", "dense", "allowed loss 0.5"):
            half = 3.1 * len(text)
            labels.append(Box(float(x) - half, float(y) - 9, float(x) + half, float(y) + 3))
    assert len(labels) == 3
    for i, box in enumerate(labels):
        assert box.left >= 0 and box.right <= 360
        assert not any(box.overlaps(other) for other in labels[i + 1 :])
        for (x, y, size), label in marks:
            assert not box.overlaps(Box(x - size, y - size, x + size, y + size)), label


def test_a_label_without_room_stands_above_the_plot():
    """Where everything is taken, a label leaves the plot and covers nothing."""
    everything = [Box(0, 10, 360, 400)]
    assert place_label("shipped", 100, 100, 5, everything).bottom <= 22


def test_the_dense_network_and_the_allowed_loss_stand_in_the_chart():
    """The dense network is a mark at its own latency and no loss; the loss that was allowed is a line."""
    html = front_section(sample())
    marks = {label: (tag, centre(tag, rest)) for tag, _, rest, label in MARK.findall(html)}
    tag, (x, y, _) = marks["dense"]
    assert tag == "polygon"
    assert y == pytest.approx(marks["point 0"][1][1], abs=0.2)  # it loses nothing either
    assert x == max(place[0] for label, (_, place) in marks.items() if label not in SERIES)
    limit = float(re.search(r'class="limit" x1="\d+" y1="([\d.]+)"', html)[1])
    assert marks["point 4"][1][1] > limit > marks["shipped"][1][1] > y  # 1.22, 0.5, 0.28 and 0 points lost
    report = sample()
    report["budget"] = {"macs": 0.3}
    assert 'class="limit"' not in front_section(report)


def test_an_error_has_a_front_of_its_own():
    """Regression and detection have no share of right answers: the chart shows their loss all the same."""
    report = sample()
    report["accuracy"]["unit"] = "percent"
    for point in report["front"]:
        point["accuracy"] = None
    assert "change on validation, percent" in front_section(report)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"max_drop": 0.5, "macs": 0.25}, "at most 0.5 points lost, 25% of the MACs"),
        ({"target_ms": 4.0}, "a median latency of 4 ms"),
        ({"deadline_ms": 9.5, "size_mb": 2}, "a 99th percentile of 9.5 ms, a file of 2 MB"),
        ({"speedup": 2.0, "params": 0.5}, "50% of the parameters, 2 times as fast"),
    ],
)
def test_the_head_says_what_was_asked_and_what_it_was_judged_by(budget, said):
    """Budget and measure stand before any number."""
    report = sample() | {"budget": budget}
    html = render_html(report)
    head = html[html.index("<header>") : html.index("</header>")]
    assert said in head
    assert "judged by accuracy on 10000 test samples" in head
    assert "no data was given" in words.asked(report | {"accuracy": None})


def test_the_amber_box_holds_warnings_alone():
    """A note is no warning: it stands below, and nothing is said twice."""
    html = render_html(sample())
    box = re.search(r'<ul class="warnings">(.*?)</ul>', html)[1]
    quiet = re.search(r'<ul class="notes">(.*?)</ul>', html)[1]
    assert re.findall("<li>(.*?)</li>", box) == sample()["warnings"]
    assert re.findall("<li>(.*?)</li>", quiet) == [sample()["notes"][0]]
    calm = render_html(sample() | {"warnings": []})
    assert '<ul class="warnings">' not in calm


def test_every_table_has_a_caption_and_scopes_and_names_for_narrow_screens():
    """Each cell below a head repeats its name, which a phone shows; no table scrolls sideways."""
    html = render_html(sample())
    tables = re.findall(r"<table.*?</table>", html)
    assert len(tables) >= 8
    for table in tables:
        assert re.search(r"<caption>[^<]+</caption>", table)
        heads = re.findall(r"<th role=columnheader scope=col>([^<]+)</th>", table)
        assert len(heads) == table.count("scope=col") >= 2
        body = table[table.index("<tbody") :]
        for row in re.findall(r"<tr.*?</tr>", body):
            assert row.count("scope=row") == 1
            assert re.findall(r'data-name="([^"]+)"', row) == heads[1:]
    css = (files("edgeprune.report") / "page.css").read_text()
    assert "overflow-x" not in css and "content:attr(data-name)" in css


def luminance(colour):
    """Relative luminance by WCAG 2."""
    colour = "".join(c * 2 for c in colour) if len(colour) == 3 else colour
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_marks_reach_three_to_one_and_text_four_and_a_half():
    """Grey marks were at 1.9 to 1: too faint to see on a poor screen. Both themes."""
    css = (files("edgeprune.report") / "page.css").read_text()
    themes = [dict(re.findall(r"--(\w+):#(\w+)", block)) for block in re.findall(r":root\{[^}]*\}", css)]
    assert len(themes) == 2
    for theme in themes:
        for behind in (theme["bg"], theme["card"]):
            for name, least in (("dense", 3), ("accent", 3), ("warn", 3), ("soft", 4.5), ("ink", 4.5)):
                light, dark = sorted((luminance(theme[name]), luminance(behind)), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= least, (name, behind)
    assert "opacity" not in re.search(r"\.track \.before\{[^}]*\}|\.before\{[^}]*\}", css)[0]


def test_changed_samples_and_classes_are_shown():
    """Counts, decisions, the picture where there is one, and the classes that lost."""
    html = render_html(sample())
    for text in ("61 of 10000 test samples changed from right to wrong", "sample 412", "coat", "2.70 points"):
        assert text in html
    assert html.count("<img") == 1 and PNG in html
    bad = sample()
    bad["changes"]["examples"][0]["thumbnail"] = '"><script>'
    assert "<img" not in render_html(bad) and "<script" not in render_html(bad)


def test_first_channels_have_score_rank_and_random_choice():
    """The evidence that `explain` gives stands on the page for the channels that went first."""
    html = render_html(sample())
    section = html[html.index("Why the first channels went") : html.index("Kept on purpose")]
    for text in ("stage2.0.conv1:17", "0.00213 nats", "1 of 64", "0.0412 nats", "0.31"):
        assert text in section


def test_next_steps_name_what_the_run_has():
    """No command for a front that was not written or a channel that was not removed."""
    steps = dict(commands(sample()))
    assert steps["why a channel went"] == "edgeprune explain . stage2.0.conv1:17"
    assert steps["take another file of the front"] == "edgeprune pick . 'point 0' -o ../picked"
    bare = sample() | {"front": [], "first_removed": [], "layers": []}
    assert [text.split()[1] for _, text in commands(bare)] == ["ship", "ship"]


def without_defaults(kind, value):
    """A record's plain form with every field left out that the schema lets be left out."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {
            f.name: without_defaults(hints[f.name], value[f.name])
            for f in dataclasses.fields(kind)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
    inside = [t for t in typing.get_args(kind) if dataclasses.is_dataclass(t)]
    if inside and isinstance(value, list):
        return [without_defaults(inside[0], x) for x in value]
    return without_defaults(inside[0], value) if inside and value is not None else value


def test_what_the_schema_lets_be_left_out_is_not_needed_to_render():
    """A pinned entry without a name was valid and a KeyError; so for every field with a default."""
    plain = json.loads(json.dumps(sample()))
    for keep in ((), ("changes", "first_removed", "preprocessing", "warnings", "notes")):
        least = without_defaults(Report, plain) | {"schema": plain["schema"]}
        for name in keep:
            (kind,) = [f for f in dataclasses.fields(Report) if f.name == name]
            least[name] = without_defaults(typing.get_type_hints(Report)[kind.name], plain[name])
        validate_report(least)
        assert "name" not in least["pinned"][0]
        assert "fashion" in render_html(least) and "MACs" in render_table(least)

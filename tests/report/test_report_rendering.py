"""The table, the page and the explanation: what they say, and what they must never say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import entry, interval, sample

from edgeprune.errors import OutputError
from edgeprune.report import render_explanation, render_html, render_table, validate_report, write_html

VOID = {"meta", "link", "br", "img", "input"}


class _Page(HTMLParser):
    """Collects text and attributes and insists that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(k, v or "") for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(k, v or "") for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _page(report) -> _Page:
    page = _Page()
    page.feed(render_html(report))
    assert page.open == []
    return page


def _untimed(basis: str):
    report = sample()
    report["latency"].update(basis=basis, where="rpi4", dense_p50_ms=None, shipped_p50_ms=None)
    for point in report["front"]:
        point["latency_ms"] = None
    validate_report(report)
    return report


def test_the_table_shows_every_headline_number():
    """Accuracy, MACs, parameters, file and latency stand as dense, shipped and change."""
    table = render_table(sample())
    for line in (
        r"accuracy +93\.02% +92\.74%  0\.28 points lost \(loss −0\.05 to \+0\.61\)",
        r"MACs +24\.5 M +7\.90 M  3\.10× fewer",
        r"parameters +272 k +81\.0 k  3\.36× fewer",
        r"file +1\.10 MB +331 kB  3\.32× smaller",
        r"latency p50 +1\.23 ms +0\.61 ms  2\.02× faster \(1\.95 to 2\.10\)",
        r"f1 \(night\) +0\.871 +0\.866",
        r"dense 93\.02% → pruned 81\.21% → compensated 91\.41% → shipped 92\.74%",
        r"7 of 9 layers narrower, 560 → 338 channels; 138 pinned",
        r"measured on Some CPU, 1 thread, batch 1",
    ):
        assert re.search(line, table), line
    assert "\x1b" not in table
    assert max(map(len, table.splitlines())) <= 100


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said", "not_said"),
    [
        (0.495, 0.476, 0.512, "2.02× faster", "not faster"),
        (0.98, 0.95, 1.0, "not faster", "× faster"),
        (0.98, 0.95, 1.01, "not faster", "× faster"),
        (1.0, 0.9, 1.1, "not faster", "× faster"),
        (1.2, 1.1, 1.3, "slower", "faster"),
    ],
)
def test_faster_is_said_only_when_the_whole_interval_is_below_one(ratio, low, high, said, not_said):
    """An interval that touches 1 is "not faster" in the table and on the page, whatever the estimate."""
    report = sample()
    report["latency"].update(ratio=ratio, ratio_low=low, ratio_high=high)
    for text in (render_table(report), _page(report).text):
        assert said in text
        assert not_said not in text


@pytest.mark.parametrize(("basis", "word"), [("estimate", "estimate"), ("emulated", "emulated")])
def test_no_milliseconds_and_no_faster_where_nothing_was_timed(basis, word):
    """A device that is not at hand gets a labelled ratio: no ms and no claim of speed."""
    report = _untimed(basis)
    for text in (render_table(report), _page(report).text):
        assert not re.search(r"\d\s*ms\b", text)
        assert not re.search(r"\bfaster\b", text)
        assert word in text


def _elsewhere():
    """A run for a board that was not at hand, timed on this machine."""
    report = sample()
    report["target"] = {"name": "rpi4", "title": "Raspberry Pi 4"}
    report["latency"].update(where="AMD EPYC", on_target=False)
    report["timing"].update(final="AMD EPYC", on_target=False, text="timed while planning: nothing; the rest")
    report["estimate"] = {
        "unit": "estimated ms (roofline)", "source": "roofline of rpi4", "dense": 4.128, "shipped": 2.204,
    }  # fmt: skip
    validate_report(report)
    return report


def test_a_time_of_another_machine_names_it_and_the_estimate_stands_beside():
    """The tile and the row say on which processor, and that it is not the target; an estimate has a unit."""
    report = _elsewhere()
    table, page = render_table(report), _page(report)
    for text in (table, page.text):
        assert "2.02× faster on AMD EPYC, not the target" in text
        assert "estimated ms (roofline), not measured: 1.87× less" in text
    assert re.search(r"^for rpi4 +4\.13 +2\.20 ", table, re.M)
    assert "measured on AMD EPYC, not the target" in table
    assert "Estimate for Raspberry Pi 4 4.13 → 2.20" in page.text
    classes = [v for k, v in page.attributes if k == "class"]
    assert "card elsewhere" in classes and "card estimate" in classes
    assert "card faster" not in classes
    assert "p50 on AMD EPYC" in page.text
    assert not re.search(r"(4\.13|2\.20) ms", table + page.text)


def test_a_report_on_the_target_says_nothing_of_another_machine():
    """On the target the tile is green as before and no estimate is shown."""
    page = _page(sample())
    assert ("class", "card faster") in page.attributes
    for text in (render_table(sample()), page.text):
        assert "not the target" not in text and "stimate" not in text


def test_both_forms_say_which_timings_were_made():
    """The sentence of the record stands in the table and on the page."""
    for text in (render_table(_elsewhere()), _page(_elsewhere()).text):
        assert re.search(r"[Tt]imed while planning: nothing; the rest", text)


def test_predicted_stands_beside_measured_for_every_planned_file():
    """Each row gives asked, predicted, measured, and how far off the prediction was; elsewhere no error."""
    text = _page(sample()).text
    assert "Predicted and measured, 2 files" in text
    assert "round 1, try 1 0.500 0.500 0.523 −4.4%" in text
    assert "point 3 – 0.480 0.495 −3.0%" in text
    text = _page(_elsewhere()).text
    assert "predicted by estimated ms (roofline) measured on AMD EPYC" in text
    assert "off by" not in text


def test_each_choice_says_how_it_was_recovered_and_lines_join_equal_ones():
    """Fine-tuned and closed-form files have marks, lines and words of their own."""
    page = _page(sample())
    assert page.text.count("closed form") >= 6 and "point 3 (shipped) fine-tuned" in page.text
    assert ("class", "dot strong") in page.attributes and ("class", "hollow") in page.attributes


def test_the_report_of_an_older_run_still_renders():
    """Schema 1 had no estimate, timing, planned, on_target and recovery."""
    report = sample()
    for key in ("estimate", "timing", "planned"):
        del report[key]
    del report["latency"]["on_target"]
    for point in report["front"]:
        del point["recovery"]
    report["schema"] = 1
    assert "2.02× faster" in render_table(report)
    assert "2.02× faster" in _page(report).text


def test_the_page_needs_no_network_and_runs_no_script():
    """No script, link, image or URL of any kind; a policy forbids loading; light and dark are styled."""
    html = render_html(sample())
    page = _page(sample())
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    sources = [v for k, v in page.attributes if k in ("src", "href", "xlink:href") or "url(" in v]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme:dark" in html
    assert "width=device-width" in html


def test_the_page_shows_widths_steps_reasons_and_provenance():
    """Each layer has a bar before and after; pinned reasons, settings, versions and hashes are there."""
    page = _page(sample())
    for text in (
        "stage3.0.conv1 128 → 36",
        "aten.foo at model.py:41 has no rule",
        "138 channels were never candidates, for 2 reasons",
        "compensated",
        "ib-gauss, relevance fisher, samples 4096",
        "torch 2.14.1",
        "ab" * 32,
        "6 min 52 s",
        "point 3",
    ):
        assert text in page.text, text
    styles = [v for k, v in page.attributes if k == "style"]
    assert "width:28.12%" in styles  # 36 of the widest, 128
    assert len(styles) == 2 * len(sample()["layers"])


def test_names_from_outside_are_escaped():
    """A layer, a reason, a note and a model that contain markup appear as text."""
    bad = "<script>alert('x')</script>\"&"
    report = sample()
    report["model"]["name"] = report["layers"][0]["name"] = report["pinned"][0]["reason"] = bad
    report["notes"], report["front"][3]["name"], report["machine"] = [bad], bad, {bad: bad}
    report["layers"][0]["note"] = report["latency"]["where"] = report["metrics"][0]["name"] = bad
    page = _page(report)
    assert "script" not in page.tags
    assert page.text.count("<script>alert('x')</script>") >= 8


def test_a_bare_report_renders():
    """Without data, bench, front, layers and pins both forms say what is missing."""
    report = sample()
    report.update(
        accuracy=None, latency=None, metrics=[], front=[], pinned=[], layers=[], notes=[], stages=[]
    )
    validate_report(report)
    assert "not measured: no data was given" in render_table(report)
    text = _page(report).text
    assert "the effect on accuracy is unknown" in text
    assert "Latency was not measured." in text
    assert "Nothing was pinned" in text


def test_without_labels_the_row_is_called_agreement():
    """Agreement with the dense model is never called accuracy."""
    report = sample()
    report["accuracy"].update(measured_as="same class as the dense model", dense=interval(0.999, 0.0))
    report["accuracy"]["compensated"] = None
    table, text = render_table(report), _page(report).text
    assert re.search(r"^same class as the dense model ", table, re.M)
    assert not re.search(r"^accuracy", table, re.M)
    assert "Same class as the dense model on the test samples" in text


def test_an_error_is_shown_in_its_unit_and_its_loss_in_percent():
    """A mean absolute error is no share: no per cent sign on the value, and percent lost, not points."""
    report = sample()
    steps = {k: interval(v, 0.01) for k, v in (("dense", 0.412), ("pruned", 0.9), ("shipped", 0.433))}
    report["accuracy"].update(measured_as="MAE", unit="percent", compensated=None, **steps)
    report["accuracy"]["drop"] = {"value": 5.1, "low": 2.0, "high": 8.0, "level": 0.95}
    validate_report(report)
    for text in (render_table(report), _page(report).text):
        assert "0.412" in text and "0.433" in text and "41.2" not in text
        assert re.search(r"5\.10 percent lost \(loss \+2\.00 to \+8\.00\)", text)


def test_where_the_test_samples_come_from_is_on_the_table_and_the_page():
    """A part held out of the user's data may have trained the dense model; both outputs say so."""
    report = sample()
    for text in (render_table(report), _page(report).text):
        assert "the dense model may have been trained on it" in " ".join(text.split())


def test_what_grew_is_not_called_smaller():
    """A file that grew and MACs that stayed are said so."""
    report = sample()
    report["file_bytes"] = {"dense": 1000, "shipped": 1500}
    report["macs"] = {"dense": 1000, "shipped": 1000}
    table = render_table(report)
    assert re.search(r"file .*1\.50× more", table)
    assert re.search(r"MACs .*unchanged", table)


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    """An unwritable place is an OutputError, a failure leaves the old page, no temporary file remains."""
    path = tmp_path / "report.html"
    write_html(sample(), path)
    first = path.read_text()
    assert first == render_html(sample())
    broken = sample()
    del broken["layers"]
    with pytest.raises(KeyError):
        write_html(broken, path)
    assert path.read_text() == first
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OutputError, match="cannot write"):
        write_html(sample(), Path(tmp_path / "report.html" / "x.html"))


def test_an_explanation_gives_score_estimator_evidence_random_coupling_and_step():
    """Each fact of the entry is in the text, with its unit and its meaning."""
    text = render_explanation(entry())
    for part in (
        "stage2.0.conv1:17 was removed",
        "0.00213 nats by ib-gauss, 3rd lowest of 64 in its layer",
        "conditional Gaussian, Fisher-weighted on 4096 samples",
        "p = 0.31 for no information at all; 95% interval 0.0011 to 0.0034 nats",
        "would have lost 0.0412 nats (0.0203 to 0.0688): this channel is clearly cheaper",
        "stage2.0.bn1.weight[17] — stage2.0.conv2.in[17]",
        "step 2 of 6, for --macs 3x; it saved 113 k MACs",
    ):
        assert part in text


def test_a_channel_no_cheaper_than_a_random_one_is_called_that():
    """A removal that random choice would have matched is not dressed up."""
    dear = entry() | {"score_nats": 0.05}
    assert "this channel is no cheaper" in render_explanation(dear)
    middling = entry() | {"score_nats": 0.03}
    assert render_explanation(middling).count("this channel is cheaper") == 1


def test_what_is_not_on_record_is_said_to_be_missing():
    """An entry with only its name invents nothing."""
    text = render_explanation({"layer": "a", "channel": 0, "removed": False})
    assert text.startswith("a:0 was kept")
    assert text.count("not recorded") == 6


def test_a_lossless_removal_needs_no_score():
    """A constant channel states its rule instead of a score."""
    text = render_explanation(
        {"layer": "a", "channel": 4, "removed": True, "reason": "its output is constant", "step": None}
    )
    assert "a:4 was removed: its output is constant" in text
    assert "score          none needed" in text
    assert "budget step    none" in text


def test_a_layer_lists_its_channels_from_the_first_to_go():
    """Lossless removals lead, then channels by score."""
    channels = [entry() | {"channel": c, "score_nats": s, "removed": s < 2} for c, s in ((0, 3.0), (1, 1.0))]
    channels.append({"layer": "a", "channel": 2, "removed": True, "reason": "dead"})
    text = render_explanation({"layer": "a", "before": 3, "after": 1, "channels": channels})
    assert text.splitlines()[0] == "a: 3 → 1 channels"
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["2", "1", "0"]
    assert "2 removed" in text


def test_a_full_disk_leaves_the_old_page(tmp_path):
    """With files limited to 1 kB the page is refused in one line and the old one stands."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "report.html"
    path.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            write_html(sample(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

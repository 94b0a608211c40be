"""Label budgets: what they say, and which frames they keep."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifting.datasets.budgets import Budget, kept_range, labelled_ranges, parse_budget, unlabelled_ranges
from lifting.datasets.clips import ClipInfo


def info(subject, action, view, frames, labelled=True):
    return ClipInfo(subject, action, view, frames, 50.0, labelled, (1000, 1000))


@pytest.mark.parametrize(("text", "share", "subjects"), [
    ("1%S1", 0.01, ("S1",)), ("0.1%S1", 0.001, ("S1",)), ("S1", 1, ("S1",)), ("S1,S5", 1, ("S1", "S5")),
    ("5% S1, S5", 0.05, ("S1", "S5")), (" 10%", 0.1, None), ("all", 1, None), ("50%*", 0.5, None),
    ("100%14", 1, ("14",)), (".5%Train/S1", 0.005, ("Train/S1",)), ("S1,1,s01", 1, ("s01",)),
])  # fmt: skip
def test_parses(text, share, subjects):
    budget = parse_budget(text)
    assert budget.share == pytest.approx(share)
    assert budget.subjects == subjects


@pytest.mark.parametrize("text", ["", "%S1", "0%S1", "101%S1", "x%S1", "-1%S1", "1%%S1", "S1%", "1%S1,,S5", ","])
def test_a_parse_error_shows_a_valid_example(text):
    with pytest.raises(ValueError, match="write for example 1%S1 ") as error:
        parse_budget(text)
    example = str(error.value).split("write for example ")[1].split(" (")[0]
    assert parse_budget(example) == Budget(0.01, ("S1",))


@given(st.integers(1, 1000), st.lists(st.sampled_from(["S1", "S5", "14", "Train/S2"]), unique=True))
def test_text_of_a_budget_reads_back(permille, subjects):
    budget = Budget(permille / 1000, tuple(subjects) or None)
    again = parse_budget(str(budget))
    assert again.share == pytest.approx(budget.share)
    assert again.subjects == budget.subjects


def test_budgets_are_checked():
    with pytest.raises(ValueError, match="names no subject"):
        Budget(0.5, ())
    with pytest.raises(ValueError, match="is nan%"):
        Budget(float("nan"))


def expected_range(frames, percent, stride):
    """The rule of the reference's section 1.6, in whole numbers."""
    tenths, rest = divmod(frames // stride * percent, 100)
    strides = tenths + (rest > 50 or (rest == 50 and tenths % 2 == 1))  # halves to even, as Python rounds
    kept = min(frames, max(1, strides) * stride)
    (number,) = struct.unpack("<I", hashlib.sha256(b"%d" % frames).digest()[:4])
    start = min(number * (frames - kept + 1) // (2**32 - 1), frames - kept)
    return start, start + kept


@given(st.integers(1, 6000), st.integers(1, 99), st.integers(1, 5))
def test_keeps_the_papers_chunk(frames, percent, stride):
    assert kept_range(frames, percent / 100, stride) == expected_range(frames, percent, stride)


@given(st.integers(1, 10_000), st.floats(1e-6, 1), st.integers(1, 7))
def test_keeps_one_run_of_frames_within_the_video(frames, share, stride):
    start, stop = kept_range(frames, share, stride)
    assert 0 <= start < stop <= frames
    assert abs(stop - start - share * frames) <= 2 * stride


def test_known_ranges():
    # `printf 1383 | sha256sum` begins 6495da52, and 0x52da9564 / (2^32 - 1) = 0.32364 of 1370 possible starts is 443.4.
    assert kept_range(1383, 0.01) == (443, 457)
    assert kept_range(1383, 1) == kept_range(1383, 1, 5) == (0, 1383)
    with pytest.raises(ValueError, match="0 frames"):
        kept_range(0, 0.5)


def test_one_percent_of_a_subject_like_s1_is_what_the_paper_counts():
    """30 takes of four views, 62,250 frames a view: "2.42k frames" (figure 5)."""
    lengths = [992 + 75 * number for number in range(30)]
    assert sum(lengths) == 62_385
    infos = [info("S1", str(take), view, frames) for take, frames in enumerate(lengths) for view in "abcd"]
    ranges = labelled_ranges(infos, parse_budget("1%S1"))
    assert sum(stop - start for start, stop in ranges.values()) == pytest.approx(2420, rel=0.05)
    few = labelled_ranges(infos, parse_budget("0.1%S1"))
    assert sum(stop - start for start, stop in few.values()) == pytest.approx(245, rel=0.05)


def test_views_of_a_take_keep_the_same_frames():
    infos = [info("S1", "Walking", "a", 900), info("S1", "Walking", "b", 903), info("S1", "Walking 1", "a", 903)]
    ranges = labelled_ranges(infos, parse_budget("10%"))
    assert ranges == {0: kept_range(900, 0.1), 1: kept_range(900, 0.1), 2: kept_range(903, 0.1)}
    assert ranges[1] != ranges[2]


def test_every_take_keeps_a_frame():
    ranges = labelled_ranges([info("S1", "Nod", "a", 3)], parse_budget("0.1%S1"), downsample=5)
    assert ranges == {0: (0, 3)}


INFOS = [info("S14", "x", "a", 10), info("S14", "x", "b", 10), info("02", "y", "a", 20), info("S3", "z", "a", 5, False)]


@pytest.mark.parametrize("text", ["S14", "14", "s14"])
def test_subjects_and_the_others(text):
    budget = parse_budget(text)
    assert labelled_ranges(INFOS, budget) == {0: (0, 10), 1: (0, 10)}
    assert unlabelled_ranges(INFOS, budget) == {2: (0, 20), 3: (0, 5)}


def test_a_budget_for_everybody_passes_over_clips_without_labels():
    assert labelled_ranges(INFOS, parse_budget("all")) == {0: (0, 10), 1: (0, 10), 2: (0, 20)}
    assert unlabelled_ranges(INFOS, parse_budget("all")) == {}


@pytest.mark.parametrize("text", ["S3", "7", "1%S14,7"])
def test_subjects_without_labels_are_refused_by_name(text):
    with pytest.raises(ValueError, match=r"no labelled clips of (S3|7); the subjects with labels are S14, 02\."):
        labelled_ranges(INFOS, parse_budget(text))
    with pytest.raises(ValueError, match="no labelled clips of anybody"):
        labelled_ranges(INFOS[3:], parse_budget("all"))

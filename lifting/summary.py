"""What `lift run` and `lift fit` print: a take in a few lines."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from lifting.console import printable

MOST_NAMES = 3  # joints that a line of a summary names


def summary(take, paths: Iterable) -> str:  # noqa: ANN001  the type would import the library at start-up
    """What was found, repaired, doubted, assumed and written, in a few lines."""
    from lifting.quality import describe_spans

    focal = " x ".join(f"{f:g}" for f in dict.fromkeys(take.metadata["focal_px"]))
    lines = [f"{headline(take)}, focal length {focal} px, detector {take.metadata['detector']}"]
    for report in take.metadata["people"]:
        repairs, missed = report["repairs"], report["reprojection_error_px"]
        missed = "unknown" if missed is None else f"{missed} px"
        lines.append(
            f"  person {report['id']}: seen in {report['frames']} frames, confidence {report['mean_confidence']:.2f}, "
            f"left/right swaps repaired in {repairs['swapped_frames']} frames, {repairs['outliers']} outliers masked, "
            f"reprojection error {missed}, sigma {1000 * report['median_sigma_m']:.0f} mm, "
            f"bone lengths +-{100 * report['bone_length_variation']['median']:.1f} %"
        )
        if doubted := describe_spans(report):
            lines.append(f"    not to be trusted: {doubted}")
    lines += [*world_lines(take), *refined_lines(take), *body_lines(take), *future_lines(take)]
    lines += [f"  assumed: {sentence}" for sentence in take.assumed]
    lines += [f"  warning: {sentence}" for sentence in [*take.metadata["warnings"], *body_warnings(take),
                                                   *take.metadata.get("refined", {}).get("warnings", ()),
                                                   *take.metadata.get("future", {}).get("warnings", ())]]
    return "\n".join(map(printable, [*lines, *(f"wrote {path}" for path in paths)]))


def headline(take) -> str:  # noqa: ANN001
    """Name, people and frames of a take."""
    people = len(take.people)
    return f"{take.name}: {people} {'person' if people == 1 else 'people'}, {len(take)} frames at {take.fps:g} frames/s"


def world_lines(take) -> list[str]:  # noqa: ANN001
    """What told gravity and how well, in one line; none where nothing did, which is among what was assumed."""
    world = take.metadata.get("world") or {"source": "camera"}
    if world["source"] == "camera":
        return []
    doubt = f", +-{world['sigma_degrees']:.1f} degrees" if world["sigma_degrees"] > 0 else ""
    return [f"  world: gravity from the {world['source']}{doubt}"]


def refined_lines(take) -> list[str]:  # noqa: ANN001
    """By what the poses were refined, in one line; none where they were not."""
    about = take.metadata.get("refined")
    return [f"  refined: poses by {about['method']}, weights {about['weights']}"] if about else []


def future_lines(take) -> list[str]:  # noqa: ANN001
    """By what the future was predicted, how far, and how uncertain its end is, in one line; none without one."""
    about = take.metadata.get("future")
    known = [person.future for person in take.people if person.future is not None]
    if not about or not known:
        return []
    doubt = 1000 * max(median(future.sigma[-1, 1:].tolist()) for future in known)
    return [f"  future: {about['frames']} frames, {about['seconds']:g} s, by {about['predictor']}, in the end known "
            f"within {doubt:.0f} mm"]


def fit_summary(take, paths: Iterable) -> str:  # noqa: ANN001
    """Whose body was fitted, how well, on what assumptions, and what was written, in a few lines."""
    about = take.metadata["body"]
    lines = [f"{headline(take)}, body {about['name']}, mode {about['mode']}", *body_lines(take)]
    lines += [f"  assumed: {sentence}" for sentence in take.assumed]
    lines += [f"  warning: {sentence}" for sentence in body_warnings(take)]
    return "\n".join(map(printable, [*lines, *(f"wrote {path}" for path in paths)]))


def body_lines(take) -> list[str]:  # noqa: ANN001
    """One line for each fitted body: stature, residuals and contacts."""
    lines = []
    for report in take.metadata.get("body", {}).get("people", ()):
        pixels, residual = report["mean_reprojection_px"], report["mean_residual_mm"]
        missed = "unknown" if pixels is None else f"{pixels} px"
        apart = "unknown" if residual is None else f"{residual:.0f} mm"
        lines.append(
            f"  body of person {report['id']}: stature {report['stature_m']:.2f} m, residual {apart}, "
            f"reprojection error {missed}, {_contact_sentence(report['contacts'])}"
        )
    return lines


def _contact_sentence(contacts: dict | None) -> str:
    """How much the feet stand, of the share of the frames for which each of their points does."""
    if not contacts:
        return "no contacts"
    return f"feet on the floor for {sum(contacts.values()) / len(contacts):.0%} of the time"


def body_warnings(take) -> list[str]:  # noqa: ANN001
    """The warnings of the fits, each with whom it is about, long lists of joints as their number."""
    about = take.metadata.get("body", {})
    fitted = [f"body of person {person['id']}: {_without_list(sentence, person.get('weak_twist', ()))}"
              for person in about.get("people", ()) for sentence in person["warnings"]]  # fmt: skip
    return [*fitted, *about.get("warnings", ())]


def _without_list(sentence: str, names: list[str]) -> str:
    return sentence.replace(", ".join(names), f"{len(names)} joints") if len(names) > MOST_NAMES else sentence

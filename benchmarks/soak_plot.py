"""The chart of soak.py: threads, descriptors and memory of the client over time, one panel each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 760
LEFT, RIGHT, TOP, BOTTOM, GAP = 84, 24, 112, 60, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73")  # told apart by the colour-blind as well


@dataclass(frozen=True)
class Sample:
    """seconds: since the start.  memory: resident, in MB."""

    seconds: float
    threads: int
    descriptors: int
    memory: float


def thirds(samples: Sequence[Sample], warm_up: float) -> tuple[list[Sample], list[Sample]]:
    """The first and the last third of what came after the warm-up; empty where that is too little."""
    warm = [sample for sample in samples if sample.seconds >= warm_up]
    third = len(warm) // 3
    return warm[:third], warm[len(warm) - third :]


def _step(span: float, most: int) -> float:
    """A round step with at most so many in the span."""
    power = 10.0 ** math.floor(math.log10(max(span, 1e-9) / most))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)


def svg(samples: Sequence[Sample], warm_ups: Mapping[str, float], title: str, subtitle: str) -> str:
    """warm_ups: seconds, by the name of the attribute."""
    end = max(sample.seconds for sample in samples)
    minutes = end >= 300
    unit = 60 if minutes else 1
    height = (HEIGHT - TOP - BOTTOM - 2 * GAP) / 3

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    def text(at_x: float, at_y: float, words: str, anchor: str = "middle", more: str = "") -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="sans-serif" font-size="13" fill="#222">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 26, title, "start", ' font-size="17"'),
        text(LEFT, 46, subtitle, "start"),
        *(
            f'<path d="M{LEFT + 10 * number} 66h10" stroke="{colour}" stroke-width="2"/>'
            for number, colour in enumerate(COLOURS)
        ),
        text(LEFT + 36, 70, "measured", "start"),
        f'<path d="M{LEFT + 120} 66h22" stroke="#222" stroke-width="1.6" stroke-dasharray="6 4"/>',
        text(LEFT + 148, 70, "medians of the first and of the last third after warm-up, which are compared", "start"),
        f'<rect x="{LEFT + 660}" y="59" width="22" height="14" fill="#f0f0f0"/>',
        text(LEFT + 688, 70, "warm-up", "start"),
    ]
    panels = (
        ("threads", "threads"),
        ("descriptors", "descriptors"),
        ("memory", "resident memory (MB)"),
    )
    step_x = _step(end / unit, 12)
    ticks_x = [number * step_x for number in range(int(end / unit / step_x) + 1)]
    for index, (name, label) in enumerate(panels):
        values = [float(getattr(sample, name)) for sample in samples]
        warm_up = min(warm_ups[name], end)
        top = TOP + index * (height + GAP)
        step_y = _step(max(values) * 1.1, 5)
        most = math.ceil(max(values) * 1.05 / step_y) * step_y

        def y(value: float, top: float = top, most: float = most) -> float:
            return top + height - height * value / most

        parts.append(
            f'<rect x="{LEFT}" y="{top:.1f}" width="{x(warm_up) - LEFT:.1f}" height="{height:.1f}" fill="#f0f0f0"/>'
        )
        for number in range(round(most / step_y) + 1):
            at = y(number * step_y)
            parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
            parts.append(text(LEFT - 8, at + 4, f"{number * step_y:,.0f}", "end"))
        parts.append(text(LEFT, top - 8, label, "start", ' font-weight="bold"'))
        for tick in ticks_x:
            parts.append(f'<path d="M{x(tick * unit):.1f} {top + height:.1f}v5" stroke="#777"/>')
            parts.append(text(x(tick * unit), top + height + 18, f"{tick:g}"))
        points = " ".join(f"{x(s.seconds):.1f},{y(value):.1f}" for s, value in zip(samples, values, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[index]}" stroke-linejoin="round"'
            ' stroke-width="1.4"/>'
        )
        by_sample = dict(zip(samples, values, strict=True))
        for third in thirds(samples, warm_up):
            if third:
                at = y(statistics.median(by_sample[sample] for sample in third))
                parts.append(
                    f'<path d="M{x(third[0].seconds):.1f} {at:.1f}H{x(third[-1].seconds):.1f}" stroke="#222"'
                    ' stroke-width="1.6" stroke-dasharray="6 4"/>'
                )
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "minutes" if minutes else "seconds"))
    return "\n".join([*parts, "</svg>", ""])

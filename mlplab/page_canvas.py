"""The charts of one page: their places in it, the buttons that they share, and the scripts that draw them."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlplab import page_charts, page_parts
from mlplab.page_charts import Look
from mlplab.page_parts import escaped


@dataclass(eq=False)
class Charts:
    """The charts of a page, which it draws when it is open, and what they have in common."""

    names: list[str]
    looks: Mapping[str, Look]
    curves: dict[str, Any] = field(default_factory=dict)
    every: list[dict[str, Any]] = field(default_factory=list)

    def figure(self, chart: Mapping[str, Any], says: str, caption: str = "", kind: str = "") -> str:
        """A chart's place in the page, with what it shows in words."""
        self.every.append(dict(chart))
        said = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
        place = f'class="chart {kind}" role="img" data-chart="{len(self.every) - 1}"'
        return f'<figure><div {place} aria-label="{html.escape(says)}"></div>{said}</figure>'

    def legend(self, ranged: bool) -> str:
        """The variants as buttons that show and hide them in all charts; `ranged`: with the epochs that are shown."""
        buttons = "".join(
            f'<button type="button" aria-pressed="true" data-variant="{place}">'
            f"{page_parts.swatch(look.colour, look.dashes)}{escaped(name)}</button>"
            for place, (name, look) in enumerate(self.looks.items())
        )
        epochs = self.curves.get("epochs") or []
        if ranged and len(epochs) > 1:
            ends = f'min="1" max="{epochs[-1]}" step="1"'
            buttons += (
                '<span class="range">epochs <input type="number" aria-label="first epoch shown" data-end="first" '
                f'{ends} value="1"> to <input type="number" aria-label="last epoch shown" data-end="last" {ends} '
                f'value="{epochs[-1]}"><button type="button" data-end="all">all epochs</button></span>'
            )
        return f'<div class="legend" role="group" aria-label="what charts show">{buttons}</div>'

    def marks(self, names: Sequence[str]) -> dict[int, str]:
        """What stands before the names of variants in the rows of a table."""
        return {
            row: page_parts.swatch(self.looks[name].colour, self.looks[name].dashes) for row, name in enumerate(names)
        }

    def scripts(self) -> str:
        """What draws them, at the page's end: a reader sees the text first."""
        if not self.every:
            return ""
        colours = [look.colour for look in self.looks.values()]
        told = {"charts": self.every, "curves": self.curves, "names": self.names, "colours": colours}
        return (
            f'<script type="application/json" id="charts">{page_parts.as_script(told)}</script>\n'
            f"<script>{page_charts.vega()}</script>\n<script>{page_parts.asset('page.js')}</script>"
        )

"""How every dashboard of ours looks: one data source variable, stable uid, a unit and a sentence on every panel, links out.

`Panel` is data; `build` turns a list of rows into Grafana's JSON. Rules are checked by tests/deploy/test_dashboards.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    ThresholdsMode,
    VariableHide,
)
from grafana_foundation_sdk.models.dashboard import Threshold as ThresholdModel

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 8, 7
# A version that nobody ran five minutes ago: a release.
_VERSIONS: Final = 'count by (version) (orders_build_info{process="orders-api"})'


@dataclass(frozen=True)
class Panel:
    """`queries` are (PromQL, legend). `runbook` is a page of docs/runbooks; `limit` draws the alert's threshold."""

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]
    runbook: str = ""
    limit: float | None = None
    single: bool = False
    exemplars: bool = False


def build(uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]]) -> str:
    """The dashboard as JSON text."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["orders"])
        .refresh("30s")
        .time("now-3h", "now")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").hide(VariableHide.DONT_HIDE))
        .annotation(
            dashboard.AnnotationQuery()
            .name("Releases")
            .datasource(SOURCE)
            .enable(True)  # noqa: FBT003 - the SDK's own style
            .icon_color("blue")
            .expr(f"{_VERSIONS} unless {_VERSIONS[:-1]} offset 5m)")
        )
        .link(dashboard.DashboardLink("Orders").type(DashboardLinkType.DASHBOARDS).tags(["orders"]).as_dropdown(True).keep_time(True))  # noqa: FBT003
        .link(dashboard.DashboardLink("Traces and logs").type(DashboardLinkType.LINK).url("/explore").keep_time(True))  # noqa: FBT003
    )
    for name, panels in rows:
        made = made.with_row(dashboard.Row(name))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    return json.dumps(json.loads(json.dumps(made.build(), cls=JSONEncoder)), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _panel(panel: Panel) -> Any:
    made: Any = stat.Panel() if panel.single else timeseries.Panel()
    made = made.title(panel.title).unit(panel.unit).description(panel.description).datasource(SOURCE).span(WIDTH).height(HEIGHT)
    if panel.runbook:
        link = dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(f"docs/runbooks/{panel.runbook}.md").target_blank(True)  # noqa: FBT003
        made = made.links([link])
    if panel.limit is not None:
        steps = [ThresholdModel(value=None, color="green"), ThresholdModel(value=panel.limit, color="red")]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for number, (expr, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(65 + number)).datasource(SOURCE)
        made = made.with_target(query.exemplar(True) if panel.exemplars else query)  # noqa: FBT003
    return made

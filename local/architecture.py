"""The architecture diagram as SVG in the console's colours, light or dark like the page that shows it."""

from html import escape

STYLE = """
  .sheet { fill: #f7f9fc } .box { fill: #ffffff; stroke: #8290a3 } .ours { fill: #e3edfb; stroke: #2f6fd0 }
  text { fill: #16202e; font: 14px system-ui, sans-serif } .small { font-size: 12px; fill: #4d5b6e }
  path { stroke: #4d5b6e; fill: none; stroke-width: 1.5; marker-end: url(#end) }
  #end path { fill: #4d5b6e; marker-end: none }
  @media (prefers-color-scheme: dark) {
    .sheet { fill: #0f151d } .box { fill: #18212c; stroke: #6c7c92 } .ours { fill: #14304f; stroke: #6aa5f2 }
    text { fill: #e6ecf4 } .small { fill: #a9b6c6 } path { stroke: #a9b6c6 } #end path { fill: #a9b6c6 }
  }
"""
# (x, y, width, height, class, title, lines below it)
BOXES = (
    (20, 20, 190, 64, "box", "Devices", "the agent, with its token"),
    (230, 20, 230, 64, "box", "Operators", "nexmdm and its console, SigV4"),
    (480, 20, 150, 64, "box", "CI", "publishes builds"),
    (650, 20, 190, 64, "box", "EventBridge", "sweep, cleanup, watch"),
    (20, 130, 610, 46, "box", "API Gateway (HTTP API)", ""),
    (20, 220, 190, 92, "ours", "For devices", "heartbeat, device_reports|registration, apk_download"),
    (230, 220, 230, 92, "ours", "For operators", "fleet, enrollment, alerts|fcm_dispatch, apk_builds"),
    (480, 220, 150, 92, "ours", "On deploy", "migrate"),
    (650, 220, 190, 92, "ours", "On schedule", "fcm_dispatch, cleanup|watch"),
    (20, 360, 400, 70, "ours", "The shared layer: models, verbs, idempotency",
     "PostgreSQL is the queue, the lock and the truth"),
    (440, 360, 190, 70, "box", "Aurora PostgreSQL", "constraints, states"),
    (650, 360, 90, 70, "box", "S3", "builds"),
    (750, 360, 90, 70, "box", "SNS", "alerts"),
    (20, 470, 190, 56, "box", "FCM", "messages to devices"),
    (650, 470, 190, 56, "ours", "notify", "Slack, PagerDuty, JSON"),
)  # fmt: skip
ARROWS = (
    "M115 84 V126", "M345 84 V126", "M555 84 V126", "M745 84 V216",
    "M115 176 V216", "M345 176 V216", "M115 312 V356", "M345 312 V356", "M555 312 V356",
    "M745 312 V340 H430 V356", "M420 395 H436", "M115 430 V466", "M795 430 V466",
)  # fmt: skip


def svg() -> str:
    """The diagram as a standalone document."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 546" role="img" aria-label="Architecture of NexMDM">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        '<rect class="sheet" width="860" height="546" rx="12"/>',
    ]
    parts += [f'<path d="{arrow}"/>' for arrow in ARROWS]
    for x, y, width, height, kind, title, lines in BOXES:
        parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        parts.append(f'<text x="{x + 14}" y="{y + 27}" font-weight="600">{escape(title)}</text>')
        for n, line in enumerate(filter(None, lines.split("|"))):
            parts.append(f'<text class="small" x="{x + 14}" y="{y + 48 + 18 * n}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"

"""The look of the HTML report: light, dark or printed, without any file beside it."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b2230; --faint: #5b6475; --line: #d9dee7; --soft: #f5f7fa;
  --accent: #2457a6; --bar: #a9bcd8; --excess: #c8372d; --expected: #14253f; --critical: #8f1414; --high: #c8372d;
  --medium: #9a6400; --low: #52606f; --info: #52606f; --good: #1a7f4b; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161d; --ink: #e5e9f0; --faint: #98a2b3; --line: #2c3440;
  --soft: #1a2029; --accent: #86b3f5; --bar: #4a6590; --excess: #f0695c; --expected: #eef3fb; --critical: #f0695c;
  --high: #f0695c; --medium: #e0a94a; --low: #98a2b3; --info: #98a2b3; --good: #52c48a; } }
@media print { :root { --paper: #fff; --ink: #000; --faint: #444; --line: #bbb; --soft: #fff; --bar: #b9c6da;
  --excess: #c8372d; --expected: #000; } main { max-width: none; } figure, tr, section.rule { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  "Noto Sans", "Liberation Sans", Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 25px; line-height: 1.3; margin: 4px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 44px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
h3 { font-size: 16px; margin: 18px 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 76ch; }
a { color: var(--accent); text-underline-offset: 2px; }
code { font: 0.92em ui-monospace, "Liberation Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.kind { color: var(--faint); font-size: 13px; font-weight: 600; letter-spacing: .04em; margin: 0; }
.verdict { display: inline-block; padding: 2px 12px; margin-right: 10px; border: 2px solid; border-radius: 6px; }
.PROMOTE { color: var(--good); } .BLOCK { color: var(--high); } .HOLD { color: var(--medium); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; padding: 0; list-style: none; }
.tiles li { flex: 1 1 150px; padding: 12px 16px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--soft); }
.tiles strong { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles .alarm { color: var(--high); } .tiles .calm { color: var(--good); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 8px 10px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td a code { white-space: nowrap; }
summary { margin: 10px 0; color: var(--accent); cursor: pointer; }
.severity { font-weight: 700; white-space: nowrap; }
.critical { color: var(--critical); } .high { color: var(--high); } .medium { color: var(--medium); }
.low { color: var(--low); } .info { color: var(--info); }
.more { color: var(--faint); margin-top: 10px; }
figure { margin: 0 0 28px; padding: 16px 18px 8px; border: 1px solid var(--line); border-radius: 8px; }
figcaption strong, figcaption .shows { display: block; font-weight: 400; }
figcaption strong { font-weight: 600; overflow-wrap: anywhere; }
figure.suspicious .shows { color: var(--excess); }
svg { display: block; width: 100%; height: auto; margin-top: 10px; font-size: 12px; }
svg text { fill: var(--faint); } svg .label, svg .panel { fill: var(--ink); } svg .panel { font-weight: 600; }
.bar { fill: var(--bar); background: var(--bar); }
.excess { fill: var(--excess); background: var(--excess); }
.moved { fill: var(--accent); background: var(--accent); }
svg .expected { fill: none; stroke: var(--expected); stroke-width: 1.6; stroke-linejoin: round; }
svg .boundary { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 4 3; }
svg .level { stroke: var(--faint); stroke-dasharray: 1 4; }
svg .axis { stroke: var(--faint); } svg .grid { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; color: var(--faint); max-width: none; }
.key { display: inline-block; width: 14px; height: 12px; border-radius: 2px; }
.key.expected { height: 0; border-top: 2px solid var(--expected); vertical-align: middle; border-radius: 0; }
section.rule { margin: 0 0 26px; padding: 14px 18px 4px; background: var(--soft);
  border-left: 3px solid var(--accent); }
section.rule h3 { margin-top: 0; }
section.rule p strong { display: block; font-size: 13px; color: var(--faint); }
footer { margin-top: 48px; color: var(--faint); font-size: 13px; }
"""

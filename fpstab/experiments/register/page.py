"""The index of a register: one page with the table of claims and the pictures that lie beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fpstab.experiments.register.entries import PAPERS

Record = dict[str, Any]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'">
<title>The papers, claim by claim · fpstab</title>
<style>
:root { --ink: #1d2430; --paper: #ffffff; --soft: #f4f6f8; --line: #d9dee5; --faint: #5c6675; --link: #2456a6;
  --reproduced: #1d6f3a; --corrected: #2456a6; --not-reproduced: #b3261e; --inconclusive: #7d5c00; --failed: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181f; --soft: #1c222b; --line: #333c49;
  --faint: #9aa6b6; --link: #8ab4f8; --reproduced: #6fcf97; --corrected: #8ab4f8; --not-reproduced: #ff8a80;
  --inconclusive: #e6b450; --failed: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .2rem; border-bottom: 1px solid var(--line);
  padding-bottom: .25rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
a { color: var(--link); } p { max-width: 75ch; } .faint { color: var(--faint); font-size: .87rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; position: sticky; top: 0; background: var(--paper); padding: .5rem 0;
  border-bottom: 1px solid var(--line); z-index: 1; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; width: 100%; min-width: 780px; }
th { text-align: left; color: var(--faint); font-weight: 600; } th, td { padding: .4rem .8rem .4rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; } td.item { min-width: 9em; font-weight: 600; } td.claim { width: 26%; }
td.found { width: 34%; } td.verdict { white-space: nowrap; font-weight: 600; } td.n { font-variant-numeric: tabular-nums; }
code { font: .85em ui-monospace, monospace; background: var(--soft); padding: .05em .3em; border-radius: 3px; }
details { color: var(--faint); } summary { cursor: pointer; }
{% for name in ("reproduced", "corrected", "not-reproduced", "inconclusive", "failed") -%}
.{{ name }} { color: var(--{{ name }}); }
{% endfor -%}
.counts { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; list-style: none; } .counts li { border: 1px solid currentColor;
  border-radius: 4px; padding: .1em .7em; font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; background: var(--soft); }
figure img { display: block; width: 100%; height: 190px; object-fit: contain; background: #fff; }
figcaption { padding: .4rem .6rem; font-size: .84rem; } pre { white-space: pre-wrap; background: var(--soft); padding: .6rem; font-size: .8rem; }
</style>
</head>
<body>
<h1>The papers, claim by claim</h1>
<p class="faint">Made {{ register.made }} by fpstab {{ register.versions.fpstab }}{% if register.versions.torch %} with torch
{{ register.versions.torch }}{% endif %}: {{ records | length }} items, {{ register.claims | length }} claims,
{{ "%.0f" | format(seconds) }} s of computation. Each verdict follows from the run's numbers by a rule that stood before it (those marked † were changed after an earlier run); the
same as <a href="register.csv">CSV</a>, <a href="register.json">JSON</a>, <a href="register.md">Markdown</a>.</p>
<ul class="counts">{% for verdict, count in counts %}<li class="{{ verdict | replace(" ", "-") }}">{{ count }} {{ verdict }}</li>{% endfor %}
{%- if failed %}<li class="failed">{{ failed | length }} failed</li>{% endif %}</ul>
<nav>{% for paper in papers %}<a href="#paper{{ paper.number }}">Paper {{ paper.number }}</a>{% endfor %}
{%- if failed %}<a href="#failed">Failed</a>{% endif %}{% if register.missing %}<a href="#missing">Without a run</a>{% endif %}</nav>
{% for paper in papers %}
<h2 id="paper{{ paper.number }}">Paper {{ paper.number }}</h2>
<p class="faint">{{ paper.title }}</p>
{% if paper.claims %}
<div class="table"><table>
<tr><th>item</th><th>claim</th><th>printed</th><th>verdict</th><th>found</th></tr>
{% for claim in paper.claims %}
<tr><td class="item">{{ claim.item }}</td><td class="claim">{{ claim.claim }}<details><summary>rule</summary>{{ claim.rule }}{% if claim.revised %} † {{ claim.revised }}.{% endif %}<br>
<code>{{ claim.rerun }}</code></details></td><td>{{ claim.printed or "–" }}</td>
<td class="verdict {{ claim.verdict | replace(" ", "-") }}">{{ claim.verdict }}</td>
<td class="found">{{ claim.found }}{% if claim.sample and claim.sample > 1 %} <span class="faint">n = {{ claim.sample }}</span>{% endif %}</td></tr>
{% endfor %}
</table></div>
{% endif %}
<h3>Pictures</h3>
<div class="pictures">
{% for record in paper.records if not record.error %}
<figure><a href="{{ record.picture | urlencode }}"><img src="{{ record.picture | urlencode }}" alt="{{ record.what }}" loading="lazy"></a>
<figcaption><b>{{ record["items"] | join(", ") }}</b> · {{ record.what }}<br><span class="faint"><code>{{ record.rerun }}</code>
{{ "%.0f" | format(record.seconds) }} s · <a href="{{ record.points | urlencode }}">CSV</a></span></figcaption></figure>
{% endfor %}
</div>
{% endfor %}
{% if failed %}
<h2 id="failed">Failed</h2>
{% for record in failed %}
<h3>{{ record.item }}</h3><pre>{{ record.error }}</pre>
{% endfor %}
{% endif %}
{% if register.missing %}
<h2 id="missing">Without a run</h2>
<ul>{% for each in register.missing %}<li><b>{{ each.item }}</b>, paper {{ each.paper }}, {{ each["items"] }}: {{ each.why }}</li>{% endfor %}</ul>
{% endif %}
</body>
</html>
"""


def render(register: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The page, as HTML; all text from the records is escaped.

    Args:
        register: What `register.json` holds.
        records: Of the items, with the names of their pictures.
    """
    from jinja2 import Environment

    claims = register["claims"]
    papers = [
        {
            "number": number,
            "title": title,
            "claims": [claim for claim in claims if claim["paper"] == number],
            "records": [record for record in records if record["paper"] == number],
        }
        for number, title in PAPERS.items()
    ]
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(_PAGE)
        .render(
            register=register,
            records=records,
            papers=papers,
            counts=sorted(Counter(claim["verdict"] for claim in claims).items()),
            failed=[record for record in records if record.get("error")],
            seconds=sum(float(record.get("seconds") or 0) for record in records),
        )
    )

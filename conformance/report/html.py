"""Writes report.html: the whole run on one page that needs nothing from the network and runs no script."""

from pathlib import Path

from jinja2 import Environment

from conformance.catalogue import load
from conformance.records import CheckRecord, RunRecord, read_checks
from conformance.report.results import read_run, security_summary
from conformance.report.standing import WORDS, by_standing

OPEN = ("failed", "error", "stale")
TEMPLATE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>MCP conformance: {{ run.verdict }}</title>
<meta name="viewport" content="width=device-width">
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1 span{padding:.1em .5em;border-radius:.2em;color:#fff;background:{{ '#2e7d32' if run.exit_code == 0 else '#c62828' }}}
table{border-collapse:collapse}
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}
pre{background:#f4f4f4;padding:.6rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}
summary{cursor:pointer}summary code{font-size:95%}.why{color:#555}
.failed,.error,.stale{color:#b3261e}.warning,.known{color:#7a5200}.passed{color:#2e7d32}.skipped{color:#666}
</style>
<h1>MCP conformance <span>{{ run.verdict }}</span></h1>
<p><code>{{ run.endpoint }}</code><br>profile {{ run.profile }}, {{ run.selection }}, started {{ run.started }},
{{ '%.1f' % run.duration_s }} s{% if run.retries %}, {{ run.retries }} retries{% endif %}</p>
<table><tr>{% for name, word in words.items() %}<th class="{{ name }}">{{ word }}</th>{% endfor %}</tr>
<tr>{% for name in words %}<td class="n">{{ groups[name]|length }}</td>{% endfor %}</tr></table>
<ul>{% for era, state in run.eras.items() %}<li>{{ era }}: {{ state }}</li>{% endfor %}
{% if run.baseline %}<li>baseline {{ run.baseline.file }}: {{ run.baseline.expected|length }} known,
{{ run.baseline.unexpected|length }} new, {{ run.baseline.stale|length }} stale</li>{% endif %}</ul>
{% if security.classes %}<h2>Security by effect</h2>
<table><tr><th>class</th><th>verdicts</th></tr>
{% for name, verdicts in security.classes.items() %}<tr><td>{{ name }}</td>
<td>{% for verdict, number in verdicts|dictsort %}{{ verdict }} {{ number }} {% endfor %}</td></tr>{% endfor %}</table>
{% endif %}
{% for name, word in words.items() if groups[name] %}
<h2 class="{{ name }}">{{ word }} ({{ groups[name]|length }})</h2>
{% if name == 'passed' %}<details><summary>list</summary>{% endif %}
{% for check in groups[name] %}
<details{% if name in open and groups[name]|length <= 20 %} open{% endif %}>
<summary><code>{{ check.id }}</code> [{{ check.level }}]
{%- if check.message %} <span class="why">{{ check.message[:200] }}</span>{% endif %}</summary>
{% for one in check.requirements %}<p>{{ one }}: {{ catalogue[one].text if one in catalogue }}
<br><span class="why">{{ check.sources[loop.index0] }}</span></p>{% endfor %}
{% if check.expected %}<p>expected: <code>{{ check.expected }}</code></p>{% endif %}
{% if check.got %}<p>got: <code>{{ check.got }}</code></p>{% endif %}
{% for exchange in check.exchanges %}<pre>$ {{ exchange.request }}
-&gt; {{ exchange.status or exchange.error }}{% for line in exchange.headers or [] %}
{{ line }}{% endfor %}

{{ exchange.body }}</pre>{% endfor %}
</details>
{% endfor %}
{% if name == 'passed' %}</details>{% endif %}
{% endfor %}
</html>
"""


def write(out: Path) -> Path:
    """Writes `out`/report.html and returns its path."""
    path = out / "report.html"
    page = render(read_run(out), list(read_checks(out / "checks.jsonl")))
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def render(run: RunRecord, checks: list[CheckRecord]) -> str:
    """The page. Everything an endpoint said is escaped by the template engine."""
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE)
    return template.render(
        run=run,
        words=WORDS,
        open=OPEN,
        groups=by_standing(run, checks),
        security=security_summary(checks),
        catalogue=load(),
    )

"""How the page looks: one narrow column, system fonts, dark where the reader's screen is dark."""

CSS = """
:root {
  --paper: #ffffff; --card: #f6f8fa; --ink: #1f2328; --faint: #656d76; --line: #d8dee4;
  --mark: #dbe8fd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --card: #161b22; --ink: #e6edf3; --faint: #9198a1; --line: #2a313c;
    --mark: #1d3557;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; }
header p, .note { color: var(--faint); }
h1 { margin: 0; font-size: 1.9rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 0.6rem; font-size: 1.15rem; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem;
  margin: 1.2rem 0 1.5rem;
}
.figures div { padding: 0.8rem 0.9rem; background: var(--card); border-radius: 8px; }
.figures dd { margin: 0; font-size: 1.3rem; font-weight: 600; white-space: nowrap; }
.figures dt { color: var(--faint); font-size: 0.8rem; line-height: 1.3; }
picture img {
  display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 8px;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: 0.35rem min(2rem, 3vw) 0.35rem 0; border-bottom: 1px solid var(--line);
  text-align: left;
}
thead th { color: var(--faint); font-size: 0.85rem; font-weight: 400; }
tbody th { font-weight: 400; }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; }
.total > * { font-weight: 600; }
td { overflow-wrap: anywhere; }
.note { margin: 0 0 0.8rem; font-size: 0.85rem; }
figure { margin: 0 0 1rem; padding: 0.9rem 1.1rem; background: var(--card); border-radius: 8px; }
figcaption { color: var(--faint); font-size: 0.85rem; }
figure p { margin: 0.3rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
mark {
  padding: 0.1em 0.2em; border-radius: 4px; background: var(--mark); color: inherit;
  box-decoration-break: clone; -webkit-box-decoration-break: clone;
}
details { margin-top: 2.5rem; }
summary { cursor: pointer; color: var(--faint); }
pre {
  padding: 1rem; overflow-x: auto; background: var(--card); border-radius: 8px;
  font: 0.85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
"""

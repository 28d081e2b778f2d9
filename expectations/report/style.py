"""How the report's page looks, by day and by night."""

STYLE = """
:root{--one:#3b6fb6;--two:#d1733f;--three:#7fb08a;--back:#fff;--soft:#f5f6f8;--line:#dfe2e7;--text:#1d2129;--dim:#626a76;
--stop:#b3261e;--set_aside:#a86400;--warn:#2c6e8f}
@media (prefers-color-scheme:dark){:root{--back:#16181d;--soft:#20242b;--line:#353b45;--text:#e6e8ec;--dim:#9aa3b0;
--stop:#ff8a80;--set_aside:#f0b35a;--warn:#79c0dd}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:960px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 8px;padding-left:14px;border-left:6px solid}
h1.fit{border-color:#3f9b5c}h1.unfit{border-color:var(--stop)}
h2{font-size:20px;margin:34px 0 10px}h3{font-size:16px;margin:22px 0 8px}h4{font-size:15px;margin:0}
.critical{color:var(--stop)}
.numbers{display:flex;gap:34px;flex-wrap:wrap}.numbers b{display:block;font-size:24px;line-height:1.2}
.numbers span{color:var(--dim)}
.bar{display:flex;height:8px;border-radius:4px;overflow:hidden;margin:12px 0 4px;background:var(--soft)}
.bar span{display:block}
.pictures{display:flex;gap:24px;flex-wrap:wrap;margin-top:16px}figure{margin:0;flex:1 1 380px}
figcaption{font-weight:600;margin-bottom:6px}.legend{font-weight:400;color:var(--dim);font-size:13px}
.legend,.numbers span{white-space:nowrap}
.legend i,.numbers i{display:inline-block;width:10px;height:10px;border-radius:2px}
.legend i,.numbers i{margin:0 5px 0 0}.legend span{margin-right:14px}
svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--dim)}svg line{color:var(--line)}
article{border:1px solid var(--line);border-left:5px solid var(--warn);border-radius:6px}
article{padding:12px 16px;margin:10px 0}
article.stop{border-left-color:var(--stop)}article.set_aside{border-left-color:var(--set_aside)}
article header{display:flex;gap:12px;align-items:baseline}article p{margin:4px 0 8px}
.tag{font-size:13px;color:var(--warn)}.stop .tag{color:var(--stop)}.set_aside .tag{color:var(--set_aside)}
.count{margin-left:auto;font-weight:600}small{color:var(--dim)}
code{font:13px ui-monospace,Menlo,Consolas,monospace}
.example{background:var(--soft);border-radius:5px;padding:8px 12px;margin:6px 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 12px;margin:6px 0 0}dt{color:var(--dim)}dd{margin:0}
.rows{color:var(--dim);font-size:13px;margin-top:8px;overflow-wrap:anywhere}details{display:inline}
summary{display:inline;cursor:pointer}footer{margin-top:40px;color:var(--dim);font-size:13px}
"""

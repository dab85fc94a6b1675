// Style sheet and script of report.html. No text from outside is ever put into either.
#pragma once

namespace finetuned {

// Series colours are Okabe and Ito's, told apart by people with any colour vision; dark pages have
// their lighter ones.
inline constexpr char kReportStyle[] = R"css(
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--text:#1b1f24;--soft:#59636e;--line:#d8dde3;--grid:#e6e9ed;
--c1:#0072b2;--c2:#d55e00;--c3:#00805f;--c4:#a5488a;--good:#0b7a4b;--goodbg:#e8f5ee;--bad:#b3261e;--badbg:#fdeceb;
--warn:#8a5a00;--warnbg:#fdf3dc;--plain:#3d5a80;--plainbg:#eaf0f7}
@media (prefers-color-scheme:dark){:root{--bg:#12161b;--card:#1a2027;--text:#e3e8ee;--soft:#9aa7b4;--line:#303943;--grid:#262e37;
--c1:#56b4e9;--c2:#f0932b;--c3:#2dc99a;--c4:#dc9bc6;--good:#5fd39b;--goodbg:#142a20;--bad:#ff8a80;--badbg:#331a1a;
--warn:#f2c15a;--warnbg:#2f2612;--plain:#9dbbe0;--plainbg:#1a2633}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:26px;line-height:1.25;margin:2px 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:0 0 12px}
h3{font-size:14px;margin:0 0 8px}
*+h3{margin-top:18px}
.scroll+p{margin-top:12px}
p{margin:0 0 10px}
p:last-child{margin-bottom:0}
small,.soft,.sub{color:var(--soft)}
.sub{overflow-wrap:anywhere;margin-bottom:18px}
.sub span+span::before{content:" · "}
section,.verdict{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin-top:16px}
.verdict{border-left:6px solid var(--tone);background:var(--tonebg)}
.verdict h2{color:var(--tone);font-size:20px;margin-bottom:4px;overflow-wrap:anywhere}
.good{--tone:var(--good);--tonebg:var(--goodbg)}
.bad{--tone:var(--bad);--tonebg:var(--badbg)}
.warn{--tone:var(--warn);--tonebg:var(--warnbg)}
.plain{--tone:var(--plain);--tonebg:var(--plainbg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:10px;margin-top:16px}
.tiles>div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tiles small{display:block}
.tiles b{display:block;font-size:20px;line-height:1.35;font-weight:600}
.findings{list-style:none;margin:0;padding:0}
.findings li{padding:8px 12px;border-left:4px solid var(--tone);background:var(--tonebg);border-radius:4px;overflow-wrap:anywhere}
.findings li+li{margin-top:8px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--grid);vertical-align:top}
tr:last-child>*{border-bottom:0}
thead th{color:var(--soft);font-weight:500;font-size:13px;border-bottom-color:var(--line)}
tbody th{font-weight:500}
.num{text-align:right}
td.num{white-space:nowrap}
th:last-child,td:last-child{padding-right:0}
.up{color:var(--bad)}.down{color:var(--good)}
code,.mono{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.cols{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:8px 36px}
.sample{padding:14px 0;border-top:1px solid var(--line)}
.sample:first-of-type{border-top:0;padding-top:0}
.sample:last-of-type{padding-bottom:0}
.sample .prompt{font-weight:600;margin-bottom:10px}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:10px}
.answers>div{border:1px solid var(--grid);border-radius:8px;padding:10px 12px;min-width:0}
.answers .tuned{border-color:var(--c1);border-width:2px;padding:9px 11px}
.answers small{display:block;margin-bottom:2px}
.said{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;max-height:24em;overflow-y:auto}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:26px 30px}
.charts .chart:first-child{grid-column:1/-1}
.chart{margin:0;min-width:0;break-inside:avoid}
figcaption{display:flex;flex-wrap:wrap;gap:0 10px;align-items:baseline;margin-bottom:10px}
.legend{margin-left:auto;display:flex;flex-wrap:wrap;gap:0 14px;font-size:13px;color:var(--soft)}
.legend i{margin-right:6px;vertical-align:middle}
.plot{position:relative;padding:0 10px 40px 52px;--h:190px}
.charts .chart:first-child .plot{--h:280px}
.area{position:relative;height:var(--h);touch-action:pan-y}
.area svg{display:block;width:100%;height:100%;overflow:visible}
.yt,.xt,.xl{position:absolute;font-size:12px;line-height:14px;color:var(--soft);white-space:nowrap}
.yt{right:8px;margin-top:-7px}
.xt{transform:translateX(-50%)}
.xl{left:52px;right:10px;bottom:2px;text-align:center}
.ys{position:absolute;left:0;top:0;width:52px;height:var(--h)}
.xs{position:absolute;left:52px;right:10px;top:calc(var(--h) + 8px);height:16px}
path{vector-effect:non-scaling-stroke;fill:none}
.grid path{stroke:var(--grid);stroke-width:1}
.line{stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.faint{stroke-width:1.2;opacity:.45}
.limit{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4}
.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}
i.dot{display:inline-block;width:9px;height:9px;border-radius:50%;background:var(--c)}
i.dash{display:inline-block;width:18px;border-top:2px solid var(--c)}
i.dash.faint{opacity:.5}
i.dash.limit{border-top:1.5px dashed var(--soft)}
i.mark{display:inline-block;width:0;height:0;border:5px solid transparent;border-bottom:8px solid var(--bad);border-top:0}
.area i.dot{position:absolute;margin:-5.5px 0 0 -5.5px;width:11px;height:11px;border:2px solid var(--card)}
.area i.mark{position:absolute;top:100%;margin:-8px 0 0 -5px}
.rule{position:absolute;top:0;bottom:0;border-left:1px solid var(--soft);pointer-events:none}
.tip{position:absolute;top:4px;z-index:2;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:5px 9px;
font-size:12.5px;line-height:1.45;white-space:nowrap;pointer-events:none;box-shadow:0 2px 8px rgba(0,0,0,.18)}
.bar{height:8px;border-radius:4px;background:var(--c1);min-width:2px}
.bars td{vertical-align:middle}
.settings{columns:2;column-gap:36px}
.settings>div{break-inside:avoid;margin-bottom:16px}
.settings table{table-layout:fixed}
.settings td:first-child{width:58%}
.settings td{padding:2px 10px 2px 0;border:0;overflow-wrap:anywhere}
.settings .set{font-weight:700}
.facts th{width:38%;color:var(--soft);font-weight:400}
footer{margin-top:20px;color:var(--soft);font-size:13px}
@media (max-width:640px){main{padding:16px 12px 32px}section,.verdict{padding:14px}.charts,.settings{grid-template-columns:minmax(0,1fr);columns:1}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.legend{margin-left:0}.facts th{width:auto}
table{font-size:13.5px}th,td{padding-right:9px}.settings code,.settings .mono{font-size:11.5px}
.charts .chart:first-child .plot{--h:220px}}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--text:#000;--soft:#444;--line:#bbb;--grid:#ddd;--c1:#0072b2;--c2:#d55e00;
--c3:#00805f;--c4:#a5488a;--good:#0b7a4b;--goodbg:#fff;--bad:#b3261e;--badbg:#fff;--warn:#8a5a00;--warnbg:#fff;--plain:#3d5a80;--plainbg:#fff}
body{font-size:11px;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0}
h2,h3,section>p:first-of-type{break-after:avoid}.tiles{grid-template-columns:repeat(auto-fit,minmax(110px,1fr))}.charts .chart:first-child .plot{--h:200px}.plot{--h:150px}
section{break-inside:auto;padding:10px 0;border-width:1px 0 0;border-radius:0}.sample,tr,.tiles>div,.findings li,.verdict{break-inside:avoid}
.said{max-height:none;overflow:visible}.scroll{overflow:visible}.tip,.rule{display:none}}
)css";

// Shows the values nearest to the pointer. Each .area names its x range; each path carries its
// points.
inline constexpr char kReportScript[] = R"js(//<![CDATA[
(function () {
  'use strict';
  function format(value) {
    if (!isFinite(value)) return 'not finite';
    var size = Math.abs(value);
    return size >= 1000 ? Math.round(value).toLocaleString('en') : size > 0 && size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
  }
  function nearest(points, x) {
    var low = 0, high = points.length - 1;
    while (high - low > 1) {
      var middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle; else high = middle;
    }
    return Math.abs(points[high][0] - x) < Math.abs(points[low][0] - x) ? points[high] : points[low];
  }
  document.querySelectorAll('.area').forEach(function (area) {
    var x0 = +area.dataset.x0, x1 = +area.dataset.x1;
    var series = Array.prototype.map.call(area.querySelectorAll('path[data-values]'), function (path) {
      return {name: path.dataset.name, points: path.dataset.values.split(';').map(function (pair) { return pair.split(' ').map(Number); })};
    }).filter(function (s) { return s.points[0].length === 2; });
    if (!series.length) return;
    var rule = document.createElement('div'), tip = document.createElement('div');
    rule.className = 'rule';
    tip.className = 'tip';
    rule.hidden = tip.hidden = true;
    area.append(rule, tip);
    function hide() { rule.hidden = tip.hidden = true; }
    area.addEventListener('pointermove', function (event) {
      var box = area.getBoundingClientRect(), x = x0 + (event.clientX - box.left) / box.width * (x1 - x0);
      var hits = series.map(function (s) { return nearest(s.points, x); });
      var at = hits.reduce(function (best, hit) { return Math.abs(hit[0] - x) < Math.abs(best[0] - x) ? hit : best; })[0];
      tip.replaceChildren();
      var head = document.createElement('b');
      head.textContent = 'step ' + at.toLocaleString('en');
      tip.append(head);
      series.forEach(function (s, i) {
        var line = document.createElement('div');
        line.textContent = s.name + ' ' + format(hits[i][1]) + (hits[i][0] === at ? '' : ' (step ' + hits[i][0].toLocaleString('en') + ')');
        tip.append(line);
      });
      rule.hidden = tip.hidden = false;
      var left = x1 > x0 ? (at - x0) / (x1 - x0) * box.width : 0;
      rule.style.left = left + 'px';
      tip.style.left = Math.max(0, Math.min(left + 10, box.width - tip.offsetWidth)) + 'px';
      if (left + 10 + tip.offsetWidth > box.width) tip.style.left = Math.max(0, left - 10 - tip.offsetWidth) + 'px';
    });
    area.addEventListener('pointerleave', hide);
    area.addEventListener('pointercancel', hide);
  });
})();
//]]>)js";

}  // namespace finetuned

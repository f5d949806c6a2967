#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# report_page_test.sh REPORT_TEST|PAGE.html [PICTURES]: lays the report of made-up runs with very long names, or a page, out
# in headless Chromium, at 390 and 1280 px, light and dark, and measures: nothing sticks out of the page or of its chart, no text of
# a chart is smaller than 11 px, labels do not lie on each other, the page's colours follow the scheme. With PICTURES it
# leaves screenshots in that folder. Exit code 77 without a Chromium.
set -euo pipefail
report_test=$(realpath "$1") pictures=${2:-}
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$chromium" ] || { echo "not run: no chromium here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $report_test in
*.html) cp "$report_test" "$work/page.html" ;;
*) NVFP4_REPORT_PAGE=$work/page.html "$report_test" "[.page]" >"$work/log" || { cat "$work/log"; exit 1; } ;;
esac
run() { HOME=$work timeout 120 "$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" "$@" 2>>"$work/errors"; }

# What the page measures about itself, sent to the frame around it: a window cannot be narrower than 500 px, a frame can.
cat >"$work/measure.js" <<'JS'
addEventListener('load', () => {
  const faults = [], wide = document.documentElement.scrollWidth, shown = [...document.querySelectorAll('svg[role=img]')].filter(s => s.clientWidth);
  const say = text => faults.length < 20 && faults.push(text);
  if (wide > innerWidth) say(`the page is ${wide} px wide in ${innerWidth}`);
  let smallest = 99, texts = 0;
  for (const svg of shown) {
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width, name = svg.getAttribute('aria-label').slice(0, 40);
    const boxes = [];
    for (const t of svg.querySelectorAll('text')) {
      const b = t.getBoundingClientRect(), size = parseFloat(getComputedStyle(t).fontSize) * scale;
      ++texts;
      smallest = Math.min(smallest, size);
      if (size < 11) say(`${name}: '${t.textContent}' is ${size.toFixed(1)} px`);
      if (b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1)
        say(`${name}: '${t.textContent}' sticks out: ${[b.left - box.left, b.right - box.right, b.top - box.top, b.bottom - box.bottom].map(Math.round)}`);
      for (const [o, u] of boxes)
        if (Math.min(b.right, o.right) - Math.max(b.left, o.left) > 1 && Math.min(b.bottom, o.bottom) - Math.max(b.top, o.top) > 4)
          say(`${name}: '${t.textContent}' lies on '${u}'`);
      boxes.push([b, t.textContent]);
    }
  }
  for (const e of document.querySelectorAll('h1,h2,p,figcaption,.scroll'))
    if (e.getBoundingClientRect().right > innerWidth + 1) say(`${e.tagName} '${e.textContent.slice(0, 30)}' sticks out`);
  for (const e of document.querySelectorAll('.scroll'))
    if (e.scrollWidth > e.clientWidth && innerWidth < 640 && !e.previousElementSibling.clientHeight) say('a wide table has no hint');
  const paper = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(JSON.stringify({charts: shown.length, texts, smallest: +smallest.toFixed(2), paper, faults}), '*');
});
JS
sed "s#</body>#<script>$(sed 's/[&\\#]/\\&/g' "$work/measure.js" | tr '\n' ' ')</script></body>#" "$work/page.html" >"$work/measured.html"

failed=no
for scheme in light dark; do
  dark=()
  [ $scheme = light ] || dark=(--blink-settings=preferredColorScheme=0)
  for width in 390 1280; do
    cat >"$work/frame.html" <<HTML
<!DOCTYPE html><html><body style="margin:0"><iframe src="measured.html" style="border:0;width:${width}px;height:900px"></iframe>
<pre id="out"></pre><script>addEventListener('message', e => document.getElementById('out').textContent = e.data);</script></body></html>
HTML
    said=$(run "${dark[@]}" --window-size=1400,1000 --virtual-time-budget=5000 --dump-dom "file://$work/frame.html" | sed -n 's/.*<pre id="out">\(.*\)<\/pre>.*/\1/p')
    echo "$scheme, $width px: $said"
    case $scheme:$said in
    light:*'"charts":'[1-9]*'"paper":"rgb(255, 255, 255)","faults":[]'* | dark:*'"charts":'[1-9]*'"paper":"rgb(20, 24, 28)","faults":[]'*) ;;
    *) failed=yes ;;
    esac
    if [ -n "$pictures" ]; then
      sed -i 's/height:900px/height:6000px/' "$work/frame.html"
      run "${dark[@]}" --window-size=$((width < 500 ? 500 : width)),6000 --screenshot="$(realpath "$pictures")/$width-$scheme.png" "file://$work/frame.html"
    fi
  done
done
[ $failed = no ] || { echo "FAILED: see the faults above"; tail -n 5 "$work/errors"; exit 1; }

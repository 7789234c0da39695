// What a test asks of a page, run in the page itself: one answer for all of them.
async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  document.querySelectorAll("img[loading=lazy]").forEach((img) => { img.loading = "eager"; });
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  await Promise.all(all("img").filter((img) => !img.complete).map((img) =>
    new Promise((done) => { img.onload = img.onerror = done; })));
  document.getAnimations().forEach((one) => one.finish());  // a fold fades in
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const words = (node) => node.textContent.trim().replace(/#$/, "");
  const article = document.querySelector("article") ?? document.body;
  const link = (selector) => document.querySelector(selector);
  const edge = innerWidth + 1;
  const size = (node) => parseFloat(getComputedStyle(node).fontSize);
  return {
    theme: document.documentElement.dataset.theme,
    ground: getComputedStyle(document.body).backgroundColor,
    title: words(document.querySelector("article h1") ?? document.querySelector("title")),
    headings: all("h1,h2,h3,h4,h5,h6", article).map((h) => +h.tagName[1]),
    ids: all("[id]").map((node) => node.id),
    links: all("a[href],area[href]").map((a) => a.href.baseVal !== undefined
      ? new URL(a.href.baseVal, document.baseURI).href : a.href),
    heads: all("link[href]").filter((l) => !["canonical"].includes(l.rel)).map((l) => l.href),
    next: link("a.right-next")?.href ?? null,
    next_name: link("a.right-next")?.innerText,
    previous: link("a.left-prev")?.href ?? null,
    previous_name: link("a.left-prev")?.innerText,
    loaded: [location.href, ...performance.getEntriesByType("resource").map((r) => r.name)],
    fonts: [...document.fonts].filter((font) => font.status === "error").map((f) => f.family),
    // Pictures without words, and pictures that did not come.
    silent: all("img, svg[role=img], [role=group] > svg").filter((node) =>
      !(node.alt ?? node.getAttribute("aria-label") ?? "").trim()).map((n) => n.outerHTML),
    broken: all("img").filter((img) => img.naturalWidth === 0).map((img) => img.src),
    // Pictures that are shown small and do not open, and drawings with words too small to read.
    shut: all("article img").filter((img) => img.closest("a")?.href !== img.src
      && img.getBoundingClientRect().width < 0.9 * img.naturalWidth).map((img) => img.src),
    small_words: all("article svg text").filter((text) => {
      const svg = text.ownerSVGElement, scale = svg.viewBox.baseVal.width || 1;
      return size(text) * svg.getBoundingClientRect().width / scale < 9.5;
    }).map(words),
    formulas: all(".math").length,
    raw_math: all(".math").filter((m) => !m.querySelector("mjx-container")).map(words),
    bad_math: all("mjx-merror, [data-mjx-error]").map((m) => m.outerHTML.slice(0, 200)),
    page_width: document.scrollingElement.scrollWidth,
    window_width: innerWidth,
    // Which elements stick out, should the page be too wide: the reason, not only the fact.
    sticking_out: all("body *").filter((node) => node.getBoundingClientRect().right > edge)
      .map((node) => node.tagName + "." + node.className).slice(0, 5),
    scrolling_code: all("pre, div.highlight").filter((node) =>
      node.scrollWidth > node.clientWidth + 1).map(words),
    small_code: all("pre:not(.cell_output *)").filter((pre) => size(pre) < 11).length,
    // An output may be small where its lines are long, so that its last column is in sight.
    small_output: all(".cell_output pre").filter((pre) => size(pre) < 8).length,
    // What an exercise says has no columns: no line of it is so long that it must be small.
    small_notes: all(".cell_output pre").filter((pre) =>
      /^(not yet|right)/.test(words(pre)) && size(pre) < 10).map(words),
    scrolling_output: all(".cell_output pre, .cell_output .text_html").filter((node) =>
      node.scrollWidth > node.clientWidth + 1).map(words),
  };
};

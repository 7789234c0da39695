// axe-core's serious and critical findings on the page, as text. `contrast` is false for all rules
// but that of contrast, and true for it alone, after which the page has lost parts for good. The
// reason is time: contrast is measured for every word, a chapter has ten thousand coloured ones of
// forty kinds, and three of a kind will do.
async (contrast) => {
  const kinds = {};
  const spare = (kind, most) => { kinds[kind] = (kinds[kind] ?? 0) + 1; return kinds[kind] > most; };
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (contrast) {
    for (const token of all("div.highlight pre span[class]"))
      if (spare(token.className + " in " + token.parentNode.className, 3))
        token.replaceWith(...token.childNodes);
    for (const code of all("div.highlight"))
      if (!code.querySelector("pre span[class]") && spare("plain code", 3)) code.remove();
    for (const selector of [".copybtn", "mjx-container"])
      for (const node of all(selector)) if (spare(selector, 5)) node.remove();
    for (const row of all("tbody tr:nth-child(n+6)")) row.remove();
  }
  const rules = contrast ? {runOnly: ["color-contrast"]}
    : {rules: {"color-contrast": {enabled: false}}};
  // Whatever is right need not be described node by node: that takes half of the time.
  return (await axe.run(document, {preload: false, resultTypes: ["violations"], ...rules}))
    .violations.filter((rule) => ["serious", "critical"].includes(rule.impact))
    .flatMap((rule) => rule.nodes.map((node) =>
      `${rule.id}: ${node.target} ${node.failureSummary}`));
}

// axe-core's serious and critical findings on the page, as text. `contrast` is false for all rules
// but that of contrast, and true for it alone. The reason is time: axe measures contrast for every
// word, and a page has ten thousand of forty kinds. Three of a kind will do, where a kind is all
// that contrast depends on: the text's own style, and what lies behind it.
async (contrast) => {
  const behind = new Map([[null, ""]]);
  const ground = (node) => {
    if (!behind.has(node)) {
      const s = getComputedStyle(node);
      const own = [s.backgroundColor, s.backgroundImage, s.opacity, s.filter, s.mixBlendMode];
      const plain = own.join() === "rgba(0, 0, 0, 0),none,1,none,normal";
      behind.set(node, ground(node.parentElement) + (plain ? "" : `/${own}`));
    }
    return behind.get(node);
  };
  const speaks = (node) => node.matches("input, select, textarea, button")
    || [...node.childNodes].some((part) => part.nodeType === Node.TEXT_NODE && part.data.trim());
  const inSight = (node) => node.checkVisibility({visibilityProperty: true})
    && node.getBoundingClientRect().width > 1;
  const kinds = {};
  const few = (node) => {
    const s = getComputedStyle(node);
    const own = [s.color, s.fontSize, s.fontWeight, s.textShadow, s.position, s.display];
    const kind = own.join() + ground(node);
    kinds[kind] = (kinds[kind] ?? 0) + 1;
    return kinds[kind] <= 3;
  };
  const texts = () => [...document.body.querySelectorAll("*")]
    .filter((node) => speaks(node) && inSight(node) && few(node));
  const alone = (chosen) => {  // without what is inside, which has kinds of its own
    const inside = chosen.flatMap((node) => [...node.children]);
    return {include: chosen, exclude: inside.filter((node) => !chosen.includes(node))};
  };
  const where = contrast ? alone(texts()) : document;
  const rules = contrast ? {runOnly: ["color-contrast"]}
    : {rules: {"color-contrast": {enabled: false}}};
  // Whatever is right need not be described node by node.
  return (await axe.run(where, {preload: false, resultTypes: ["violations"], ...rules}))
    .violations.filter((rule) => ["serious", "critical"].includes(rule.impact))
    .flatMap((rule) => rule.nodes.map((node) =>
      `${rule.id}: ${node.target} ${node.failureSummary}`));
}

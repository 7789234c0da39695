// axe-core's serious and critical findings on the page, as text. `colours` is false for all rules
// but the two on colours, and true for these alone: contrast, and whether a link can be told from
// the text around it. The reason is time: axe measures both for every word and every link, and a
// page has ten thousand of forty kinds. Three of a kind will do, where a kind is all that the rules
// depend on: the text's own style and what lies behind it; of a link, the text's around it too.
async (colours) => {
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
  const look = (node) => {
    const s = getComputedStyle(node);
    const own = [s.color, s.fontSize, s.fontWeight, s.textShadow, s.position, s.display];
    return own.join() + ground(node);
  };
  const kinds = {};
  const few = (kind) => (kinds[kind] = (kinds[kind] ?? 0) + 1) <= 3;
  const texts = () => [...document.body.querySelectorAll("*")]
    .filter((node) => speaks(node) && inSight(node) && few(look(node)));
  const block = (node) =>
    getComputedStyle(node).display.startsWith("inline") ? block(node.parentElement) : node;
  const inText = (link) => block(link.parentElement).textContent.trim() !== link.textContent.trim();
  const lines = (node) => {
    const s = getComputedStyle(node);
    return [s.textDecoration, s.borderBottom, s.fontStyle, s.fontFamily].join();
  };
  const links = () => [...document.body.querySelectorAll("a[href]")].filter((link) => inSight(link)
    && inText(link) && few(["link", ...[link, ...link.children, block(link.parentElement)]
      .map((node) => look(node) + lines(node))].join("/")));
  const alone = (chosen) => {  // without what is inside, which has kinds of its own
    const inside = chosen.flatMap((node) => [...node.children]);
    return {include: chosen, exclude: inside.filter((node) => !chosen.includes(node))};
  };
  const off = {enabled: false};
  const where = colours ? alone([...new Set([...texts(), ...links()])]) : document;
  const rules = colours ? {runOnly: ["color-contrast", "link-in-text-block"]}
    : {rules: {  // what lies outside of landmarks is never serious, and takes long
      "color-contrast": off, "link-in-text-block": off, "region": off}};
  // Whatever is right need not be described node by node.
  return (await axe.run(where, {preload: false, resultTypes: ["violations"], ...rules}))
    .violations.filter((rule) => ["serious", "critical"].includes(rule.impact))
    .flatMap((rule) => rule.nodes.map((node) =>
      `${rule.id}: ${node.target} ${node.failureSummary}`));
}

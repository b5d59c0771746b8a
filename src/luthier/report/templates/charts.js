(function () {
  var charts = Array.prototype.slice.call(document.querySelectorAll(".chart"));
  var zh = document.getElementById("lang-zh"), root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var touch = window.matchMedia("(pointer: coarse)").matches;
  var width = null;

  // A figure holds {css: name} for a colour of the page and {by: what, ...} for what is chosen on
  // it: the language, the horizontal axis.
  function resolve(value, style, choice) {
    if (Array.isArray(value)) {
      return typeof value[0] === "number" ? value : value.map(function (part) { return resolve(part, style, choice); });
    }
    if (value === null || typeof value !== "object") { return value; }
    if (value.css) { return style.getPropertyValue(value.css).trim(); }
    if (value.by) { return resolve(value[choice[value.by]], style, choice); }
    var found = {};
    Object.keys(value).forEach(function (name) { found[name] = resolve(value[name], style, choice); });
    return found;
  }

  function draw() {
    var style = window.getComputedStyle(root), axis = document.querySelector("input[name=axis]:checked");
    var choice = { language: zh.checked ? "zh" : "en", axis: axis ? axis.value : "step" };
    charts.forEach(function (chart) {
      var figure = JSON.parse(document.getElementById("figure-" + chart.id).textContent);
      var layout = resolve(figure.layout, style, choice);
      layout.dragmode = touch ? false : "zoom";  // A finger on a chart scrolls the page.
      layout.autosize = width === null;
      if (width !== null) { layout.width = Math.min(width, chart.parentNode.offsetWidth || width); }
      Plotly.react(chart, resolve(figure.data, style, choice), layout, { responsive: true, displayModeBar: false });
    });
  }

  document.querySelectorAll("input[type=radio]").forEach(function (input) { input.addEventListener("change", draw); });
  dark.addEventListener("change", draw);
  window.addEventListener("beforeprint", function () { root.classList.add("paper"); width = 640; draw(); });
  window.addEventListener("afterprint", function () { root.classList.remove("paper"); width = null; draw(); });
  draw();
})();

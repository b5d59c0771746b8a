(function () {
  var figures = JSON.parse(document.getElementById("figures").textContent);
  Object.keys(figures).forEach(function (name) {
    var figure = figures[name];
    Plotly.newPlot("chart-" + name, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  });
})();

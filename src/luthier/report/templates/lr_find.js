(function () {
  var figure = JSON.parse(document.getElementById("figure").textContent);
  Plotly.newPlot("chart", figure.data, figure.layout, { responsive: true, displayModeBar: false });
})();

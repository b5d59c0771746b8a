(function () {
  var zh = document.getElementById("lang-zh"), en = document.getElementById("lang-en");
  function tell() { document.documentElement.lang = zh.checked ? "zh-Hans" : "en"; }
  if (/^zh\b/i.test(navigator.language || "")) { zh.checked = true; }
  zh.onchange = en.onchange = tell;
  tell();
})();

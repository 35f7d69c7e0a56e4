// Shows the OpenAPI document, which needs a token like everything else that the API answers.
// The token is kept in this page's memory only; what is tried out is sent with it.
"use strict";

const form = document.getElementById("open");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const token = document.getElementById("token").value.trim();
  try {
    const answer = await fetch("../openapi.json", { headers: { Authorization: `Bearer ${token}` } });
    const spec = await answer.json();
    if (!answer.ok) {
      throw new Error(spec.detail);
    }
    form.remove();
    const ui = SwaggerUIBundle({
      spec,
      dom_id: "#api",
      deepLinking: true,
      validatorUrl: null,
      onComplete: () => ui.preauthorizeApiKey("token", token),
    });
  } catch (error) {
    problem.textContent = error.message;
  }
});

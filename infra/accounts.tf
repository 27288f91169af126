# One account for each thing that runs. None has a key; none has a role on the project that a resource could give.
locals {
  accounts = {
    web      = "the web application on Cloud Run, and its migrations"
    pipeline = "tasks of pipeline and tuning jobs on Vertex AI"
    serving  = "the endpoint on Vertex AI that plays"
    check    = "builds of pull requests: tests, and images that go nowhere"
    build    = "builds of main: tests, images, their signatures, templates"
    release  = "builds of tags, and workflows on GitHub: deployments of what main's build has signed"
    nightly  = "the whole lifecycle on the real cloud, once a night"
    clean    = "takes away what has expired, once a day"
  }

  # MELODIFY_SERVICE_ACCOUNT of the web application: who its jobs act as, and who its links are signed by.
  web_acts_as = var.web_profile == "gcp" ? "pipeline" : "web"
}

resource "google_service_account" "this" {
  for_each = local.accounts

  account_id   = "melodify-${each.key}"
  display_name = "Melodify: ${each.key}"
  description  = each.value
  depends_on   = [google_project_service.this]
}

# What starts the builds: a push to main and a tag (cloudbuild.yaml), and the clock (cloudbuild.nightly.yaml). The
# connection to the repository is made by hand, as somebody has to agree to it on GitHub: gcloud builds connections.
locals {
  has_builds = var.build_repository == "" ? 0 : 1
  pushes = {
    main    = { branch = "^main$", tag = null }
    release = { branch = null, tag = "^v[0-9].*$" } # also releases: canary, gate, web
  }
}

resource "google_cloudbuild_trigger" "push" {
  for_each = local.has_builds == 1 ? local.pushes : {}

  name            = "melodify-${each.key}"
  location        = var.region
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.this["build"].id
  substitutions   = { _REGION = var.region }

  repository_event_config {
    repository = var.build_repository
    push {
      branch = each.value.branch
      tag    = each.value.tag
    }
  }
}

# The clock speaks to a topic and the trigger listens to it, so that no account has to be allowed to start builds.
resource "google_pubsub_topic" "nightly" {
  #checkov:skip=CKV_GCP_83: what is said is that it is night
  count = local.has_builds

  name       = "melodify-nightly"
  depends_on = [google_project_service.this]
}

resource "google_cloud_scheduler_job" "nightly" {
  count = local.has_builds

  name      = "melodify-nightly"
  region    = var.region
  schedule  = "0 1 * * *"
  time_zone = "Etc/UTC"
  paused    = var.nightly_budget == 0

  pubsub_target {
    topic_name = google_pubsub_topic.nightly[0].id
    data       = base64encode("night")
  }
}

resource "google_cloudbuild_trigger" "nightly" {
  count = local.has_builds

  name            = "melodify-nightly"
  location        = var.region
  service_account = google_service_account.this["nightly"].id
  substitutions   = { _REGION = var.region, _BUDGET = tostring(var.nightly_budget) }

  pubsub_config {
    topic = google_pubsub_topic.nightly[0].id
  }

  source_to_build {
    repository = var.build_repository
    ref        = "refs/heads/main"
    repo_type  = "GITHUB"
  }

  git_file_source {
    path       = "cloudbuild.nightly.yaml"
    repository = var.build_repository
    revision   = "refs/heads/main"
    repo_type  = "GITHUB"
  }
}

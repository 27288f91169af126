# What starts the builds: a pull request and a push to main (cloudbuild.yaml), a tag that somebody approves
# (cloudbuild.release.yaml), and the clock. The connection to the repository is made by hand, as somebody has to agree to
# it on GitHub: gcloud builds connections. Whoever writes a pull request writes the file of its build too: what holds is
# the account that its trigger gives it, not the file.
locals {
  has_builds = var.build_repository == "" ? 0 : 1
  pushes = {
    build   = { branch = "^main$", tag = null, file = "cloudbuild.yaml", images = true }
    release = { branch = null, tag = "^v[0-9].*$", file = "cloudbuild.release.yaml", images = false }
  }
  clocks = {
    nightly = { schedule = "0 1 * * *", paused = var.nightly_budget == 0, gives = { _BUDGET = tostring(var.nightly_budget) } }
    clean   = { schedule = "0 7 * * *", paused = false, gives = {} } # whatever else runs or does not
  }
  source = var.github_repository == "" ? "" : "https://github.com/${var.github_repository}"
}

resource "google_cloudbuild_trigger" "pull" {
  count = local.has_builds

  name            = "melodify-check"
  location        = var.region
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.this["check"].id
  substitutions   = { _REGION = var.region, _SOURCE = local.source, _ACCOUNT = "check" }

  repository_event_config {
    repository = var.build_repository
    pull_request {
      branch          = "^main$"
      comment_control = "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY" # theirs run when an owner says /gcbrun
    }
  }
}

resource "google_cloudbuild_trigger" "push" {
  for_each = local.has_builds == 1 ? local.pushes : {}

  name            = "melodify-${each.key}"
  location        = var.region
  filename        = each.value.file
  service_account = google_service_account.this[each.key].id
  substitutions   = merge({ _REGION = var.region }, each.value.images ? { _SOURCE = local.source } : {})

  repository_event_config {
    repository = var.build_repository
    push {
      branch = each.value.branch
      tag    = each.value.tag
    }
  }

  approval_config {
    approval_required = each.key == "release" # by who has roles/cloudbuild.builds.approver
  }
}

# A clock speaks to a topic and a trigger listens to it, so that no account has to be allowed to start builds.
resource "google_pubsub_topic" "clock" {
  #checkov:skip=CKV_GCP_83: what is said is that it is time
  for_each = local.has_builds == 1 ? local.clocks : {}

  name       = "melodify-${each.key}"
  depends_on = [google_project_service.this]
}

resource "google_cloud_scheduler_job" "clock" {
  for_each = google_pubsub_topic.clock

  name      = "melodify-${each.key}"
  region    = var.region
  schedule  = local.clocks[each.key].schedule
  time_zone = "Etc/UTC"
  paused    = local.clocks[each.key].paused

  pubsub_target {
    topic_name = each.value.id
    data       = base64encode(each.key)
  }
}

resource "google_cloudbuild_trigger" "clock" {
  for_each = google_pubsub_topic.clock

  name            = "melodify-${each.key}"
  location        = var.region
  service_account = google_service_account.this[each.key].id
  substitutions   = merge({ _REGION = var.region }, local.clocks[each.key].gives)

  pubsub_config {
    topic = each.value.id
  }

  source_to_build {
    repository = var.build_repository
    ref        = "refs/heads/main"
    repo_type  = "GITHUB"
  }

  git_file_source {
    path       = "cloudbuild.${each.key}.yaml"
    repository = var.build_repository
    revision   = "refs/heads/main"
    repo_type  = "GITHUB"
  }
}

# The secrets, without their values: those are put in by hand, so that no state and no plan ever holds one.
locals {
  secrets = {
    openai = {
      is   = "key of OpenAI, for captions: MELODIFY_OPENAI_SECRET"
      read = concat(["pipeline", "nightly"], var.web_profile == "gcp" ? ["web"] : []) # clients.py, where OpenAI captions
    }
    web-secret-key = {
      is   = "signs visitors' cookies: WEB_SECRET_KEY, 50 characters or more"
      read = ["web"]
    }
    web-database-url = {
      is   = "postgres://USER:PASSWORD@ADDRESS/melodify?sslmode=require: DATABASE_URL"
      read = ["web"]
    }
    web-metrics-token = {
      is   = "who may read /metrics: WEB_METRICS_TOKEN"
      read = ["web"]
    }
  }

  secret_readers = merge([
    for name, secret in local.secrets : { for who in secret.read : "${who} ${name}" => {} }
  ]...)
}

resource "google_secret_manager_secret" "this" {
  for_each = local.secrets

  secret_id   = each.key
  annotations = { is = each.value.is }

  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

# Reading one secret: what is in `read` above, and nobody all of them.
resource "google_secret_manager_secret_iam_member" "this" {
  for_each = local.secret_readers

  secret_id = google_secret_manager_secret.this[split(" ", each.key)[1]].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this[split(" ", each.key)[0]].member
}

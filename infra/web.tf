# The web application: pages, API and the workers that make songs, in one container (web/server.py), and its migrations.
# Workers live beside the pages, so there is no service of their own for them: more instances are more of both, and any
# worker makes any visitor's song, as the queue is in the database.
locals {
  has_web  = var.web_image == "" ? 0 : 1
  web_name = "melodify-web"
  run_host = "${local.web_name}-${data.google_project.this.number}.${var.region}.run.app"
  web_host = var.web_host != "" ? var.web_host : local.run_host

  # Not MELODIFY_IMAGE: that comes with the image, so that a release changes both, and going back too.
  web_environment = {
    MELODIFY_PROFILE         = var.web_profile
    MELODIFY_ALLOW_PAID      = "true" # Cloud Storage is paid for too
    MELODIFY_PROJECT         = var.project
    MELODIFY_LOCATION        = var.region
    MELODIFY_BUCKET          = google_storage_bucket.melodify.name
    MELODIFY_STORE           = "gs://${google_storage_bucket.melodify.name}"
    MELODIFY_SERVICE_ACCOUNT = google_service_account.this[local.web_acts_as].email
    MELODIFY_KEEP_DAYS       = tostring(var.keep_days)
    MELODIFY_OPENAI_SECRET   = var.web_profile == "gcp" ? local.openai_secret : ""
    WEB_HOSTS                = jsonencode(distinct([local.web_host, "canary---${local.run_host}"])) # .ci/deploy-web asks the second
    WEB_WORKERS              = "1"
  }

  web_secrets = {
    WEB_SECRET_KEY    = "web-secret-key"
    WEB_METRICS_TOKEN = "web-metrics-token"
    DATABASE_URL      = "web-database-url"
  }

  openai_secret = "${google_secret_manager_secret.this["openai"].name}/versions/latest"
}

resource "google_cloud_run_v2_service" "web" {
  count = local.has_web

  name                = local.web_name
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_ALL" # it is for everybody; what comes in is checked by the application
  deletion_protection = true

  template {
    service_account                  = google_service_account.this["web"].email
    timeout                          = "300s" # a large picture over a slow line
    max_instance_request_concurrency = 64     # WEB_THREADS

    scaling {
      min_instance_count = var.web_instances.least
      max_instance_count = var.web_instances.most
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY" # the database; Google's and OpenAI's addresses go straight out
      network_interfaces {
        network    = google_compute_network.this.id
        subnetwork = google_compute_subnetwork.this.id
      }
    }

    containers {
      image = var.web_image

      resources {
        limits            = { cpu = "2", memory = "4Gi" } # a song 0.6 GB, a large picture 1 GB, both in a file system that is memory
        cpu_idle          = false                         # workers make songs while nobody asks
        startup_cpu_boost = true
      }

      ports {
        container_port = 8080
      }

      dynamic "env" {
        for_each = local.web_environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.web_secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.this[env.value].secret_id
              version = "latest"
            }
          }
        }
      }

      startup_probe { # database, store and a worker answer: the first loads its models
        http_get {
          path = "/ready"
        }
        period_seconds    = 5
        timeout_seconds   = 4
        failure_threshold = 36
      }

      liveness_probe { # the process answers; a database that is away is no reason to end it
        http_get {
          path = "/health"
        }
        period_seconds  = 30
        timeout_seconds = 5
      }
    }
  }

  lifecycle {
    # The release rolls out new ones, each with the image of its jobs in it, and shifts the traffic.
    ignore_changes = [template[0].containers[0].image, traffic, client, client_version]
  }

  depends_on = [google_secret_manager_secret_iam_member.this]
}

# `python -m web migrate`, run before a new revision gets visitors: gcloud run jobs execute melodify-migrate --wait
resource "google_cloud_run_v2_job" "migrate" {
  count = local.has_web

  name                = "melodify-migrate"
  location            = var.region
  deletion_protection = false # it holds nothing

  template {
    template {
      service_account = google_service_account.this["web"].email # the same secrets, and no more
      timeout         = "600s"
      max_retries     = 1

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = google_compute_network.this.id
          subnetwork = google_compute_subnetwork.this.id
        }
      }

      containers {
        image   = var.web_image
        command = ["python", "-m", "web", "migrate"]

        resources {
          limits = { cpu = "1", memory = "1Gi" }
        }

        dynamic "env" {
          for_each = local.web_environment
          content {
            name  = env.key
            value = env.value
          }
        }

        dynamic "env" {
          for_each = local.web_secrets
          content {
            name = env.key
            value_source {
              secret_key_ref {
                secret  = google_secret_manager_secret.this[env.value].secret_id
                version = "latest"
              }
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [template[0].template[0].containers[0].image, client, client_version]
  }

  depends_on = [google_secret_manager_secret_iam_member.this]
}

resource "google_cloud_run_v2_service_iam_member" "everybody" {
  #checkov:skip=CKV_GCP_102: it is a public web site; uploads are limited by the application, and web_is_public = false closes it
  count = var.web_is_public ? local.has_web : 0

  name     = google_cloud_run_v2_service.web[0].name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

# The APIs that are asked, by what is in this folder or by the library.
resource "google_project_service" "this" {
  for_each = toset([
    "aiplatform.googleapis.com",           # pipelines, tuning, endpoints, Gemini, Lyria
    "artifactregistry.googleapis.com",     # images, pipeline templates
    "billingbudgets.googleapis.com",       # budget.tf
    "cloudbuild.googleapis.com",           # builds
    "cloudkms.googleapis.com",             # signing.tf
    "cloudscheduler.googleapis.com",       # builds.tf
    "cloudquotas.googleapis.com",          # melodify doctor shows quotas
    "cloudresourcemanager.googleapis.com", # melodify doctor asks what is granted
    "compute.googleapis.com",              # network.tf
    "iam.googleapis.com",                  # accounts.tf
    "iamcredentials.googleapis.com",       # links are signed without a key
    "logging.googleapis.com",              # logs
    "monitoring.googleapis.com",           # alerts.tf
    "pubsub.googleapis.com",               # builds.tf
    "run.googleapis.com",                  # web.tf
    "secretmanager.googleapis.com",        # secrets.tf
    "servicenetworking.googleapis.com",    # the database's private address
    "sqladmin.googleapis.com",             # database.tf
    "storage.googleapis.com",              # storage.tf
    "sts.googleapis.com",                  # github.tf
  ])

  service            = each.value
  disable_on_destroy = false # others in the project may use it
}

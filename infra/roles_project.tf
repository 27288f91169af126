# Roles on the project: only for what has no resource that could carry the role.
locals {
  project_roles = {
    # Cloud Run writes what is printed by itself; this is for what is logged through the API by the platform's agents
    # in the name of a custom account, as Vertex AI and Cloud Build do.
    "pipeline roles/logging.logWriter" = {}
    "serving roles/logging.logWriter"  = {}
    "check roles/logging.logWriter"    = {} # a build that acts as an account of ours is refused without
    "build roles/logging.logWriter"    = {} # the same
    "release roles/logging.logWriter"  = {} # the same
    "nightly roles/logging.logWriter"  = {} # the same
    "clean roles/logging.logWriter"    = {} # the same

    # Predictions (Gemini, the endpoint, Lyria), and what Vertex AI asks of an account that jobs act as. Its resources
    # have no policies of their own for this, so it is the project's.
    "pipeline roles/aiplatform.user" = {}
    # melodify_lib/cloud/endpoints.py: register, deploy a canary, predict, shift, roll back.
    "release roles/aiplatform.user" = {}
    # The same and more: tuning and pipeline jobs, and resources.py, which lists and deletes what the night has made.
    "nightly roles/aiplatform.user" = {}
  }

  # pipelines/vertex.py submits and watches the jobs of visitors; only where jobs make their songs.
  web_project_roles = var.web_profile == "gcp" ? { "web roles/aiplatform.user" = {} } : {}
}

resource "google_project_iam_member" "this" {
  for_each = merge(local.project_roles, local.web_project_roles)

  project = var.project
  role    = split(" ", each.key)[1]
  member  = google_service_account.this[split(" ", each.key)[0]].member
}

# What melodify_lib/cloud/resources.py does, and no more: it can make nothing, predict nothing and read no song. A role
# cannot be bound to labels; that nothing without ours is touched is the program's doing.
resource "google_project_iam_custom_role" "clean" {
  role_id     = "melodifyClean"
  title       = "Melodify: clean-up"
  description = "List and delete endpoints, models and jobs on Vertex AI"
  permissions = concat(
    [for kind in ["endpoints", "models", "pipelineJobs", "tuningJobs"] : "aiplatform.${kind}.list"],
    [for kind in ["endpoints", "models", "pipelineJobs", "tuningJobs"] : "aiplatform.${kind}.get"],
    [for kind in ["endpoints", "models", "pipelineJobs"] : "aiplatform.${kind}.delete"], # a tuning job stays as a record
    [for kind in ["pipelineJobs", "tuningJobs"] : "aiplatform.${kind}.cancel"],
    ["aiplatform.endpoints.undeploy", "aiplatform.operations.list"], # what is being deployed is waited for
  )
}

resource "google_project_iam_member" "clean" {
  project = var.project
  role    = google_project_iam_custom_role.clean.id
  member  = google_service_account.this["clean"].member
}

# Roles on one resource each.

# The bucket. objectUser reads, writes, lists and deletes objects; it gives no rights away, as objectAdmin could.
resource "google_storage_bucket_iam_member" "melodify" {
  for_each = {
    web      = "roles/storage.objectUser"   # cloud/store.py: a track's files are written, listed, read, deleted
    pipeline = "roles/storage.objectUser"   # tasks read models and pictures, hand on files, write songs
    serving  = "roles/storage.objectUser"   # reads the checkpoint; writes songs over the generation that it found
    nightly  = "roles/storage.objectUser"   # uploads datasets and models, reads songs, tidies up
    build    = "roles/storage.objectViewer" # the gate after a canary reads the song that was played
  }

  bucket = google_storage_bucket.melodify.name
  role   = each.value
  member = google_service_account.this[each.key].member
}

resource "google_storage_bucket_iam_member" "results" {
  for_each = toset(["build", "nightly"]) # put their executed notebooks there, also when a cell failed

  bucket = google_storage_bucket.results.name
  role   = "roles/storage.objectUser"
  member = google_service_account.this[each.key].member
}

# Images and templates. Vertex AI and Cloud Run pull images by agents of their own, so nobody else needs to read.
resource "google_artifact_registry_repository_iam_member" "build" {
  for_each = {
    images    = google_artifact_registry_repository.images.name    # pushes, and reads the cache; Cloud Run asks that who deploys can read
    pipelines = google_artifact_registry_repository.pipelines.name # uploads the compiled pipeline
  }

  repository = each.value
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.this["build"].member
}

# Links are signed by IAM's signBlob, as MELODIFY_SERVICE_ACCOUNT (cloud/store.py), so that no key is needed.
resource "google_service_account_iam_member" "signs_as" {
  for_each = {
    web     = local.web_acts_as # itself, unless jobs make its songs
    nightly = "pipeline"
  }

  service_account_id = google_service_account.this[each.value].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_service_account.this[each.key].member
}

# Whoever orders a job, a deployment or a revision that acts as an account must be allowed to.
resource "google_service_account_iam_member" "acts_as" {
  for_each = merge(
    {
      "build web"        = {} # new revisions of the web service, its migrations
      "build serving"    = {} # new models on the endpoint
      "nightly pipeline" = {} # pipeline and tuning jobs, the endpoint of notebook 05
    },
    var.web_profile == "gcp" ? { "web pipeline" = {} } : {}, # a job a song
  )

  service_account_id = google_service_account.this[split(" ", each.key)[1]].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.this[split(" ", each.key)[0]].member
}

# Cloud Run: the build rolls out new images and runs the migrations, and can do no more with other services.
resource "google_cloud_run_v2_service_iam_member" "build" {
  count = local.has_web

  name     = google_cloud_run_v2_service.web[0].name
  location = var.region
  role     = "roles/run.developer"
  member   = google_service_account.this["build"].member
}

# The same of the job: it gets the new image, and is run before the service does.
resource "google_cloud_run_v2_job_iam_member" "build" {
  count = local.has_web

  name     = google_cloud_run_v2_job.migrate[0].name
  location = var.region
  role     = "roles/run.developer"
  member   = google_service_account.this["build"].member
}

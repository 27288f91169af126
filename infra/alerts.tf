# Errors, from the logs of everything that is ours: the web service, tasks of pipelines, the endpoint.
resource "google_monitoring_notification_channel" "email" {
  display_name = "Melodify: e-mail"
  type         = "email"
  labels       = { email_address = var.alert_email }
  depends_on   = [google_project_service.this]
}

resource "google_logging_metric" "errors" {
  name        = "melodify/errors"
  description = "Lines of severity ERROR and above"

  # As melodify_lib/logs.py writes them with MELODIFY_LOG_FORMAT=json. The images' own logs of other severities are not
  # counted: a song that was asked for and cannot be made is no error of ours, and is logged below.
  filter = <<-END
    severity >= ERROR
    AND (
      (resource.type = "cloud_run_revision" AND resource.labels.service_name = "${local.web_name}")
      OR (resource.type = "cloud_run_job" AND resource.labels.job_name = "melodify-migrate")
      OR resource.type = "aiplatform.googleapis.com/Endpoint"
      OR resource.type = "ml_job"
    )
  END

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }
}

resource "google_monitoring_alert_policy" "errors" {
  display_name          = "Melodify: errors"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]
  severity              = "WARNING"

  conditions {
    display_name = "more than 3 errors in 5 minutes"
    condition_threshold {
      filter          = "metric.type = \"logging.googleapis.com/user/${google_logging_metric.errors.name}\" AND resource.type = one_of(\"cloud_run_revision\", \"cloud_run_job\", \"aiplatform.googleapis.com/Endpoint\", \"ml_job\")"
      comparison      = "COMPARISON_GT"
      threshold_value = 3 # one error is a line in the log; a database that is away, or a musician that does not load, is many
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["resource.type"]
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "docs/operations.md says what each line means and what to do. The lines: Logs Explorer, `severity>=ERROR`; one song's: `labels.track=\"…\"` or its trace."
  }

  alert_strategy {
    auto_close = "86400s"
  }
}
